"""Merge chains of conversions."""

from __future__ import annotations

import numpy as np

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import DTYPES, DType
from mnnpy.runtime.ops.casting import Cast


def merge_casts(graph: Graph) -> Graph:
    """Leave out a conversion that loses nothing before another: float16 -> float32 -> float16."""
    return apply_rules(graph, _merge)


def _merge(subject: Subject, node: Node) -> Patch | None:
    first = subject.producer(node.inputs[0], Cast) if isinstance(node.op, Cast) else None
    if first is None:
        return None
    x = subject.tensor(first.inputs[0])
    if x is None or not isinstance(first.op, Cast) or not _exact(x.dtype, DTYPES[first.op.to]):
        return None
    return Patch((node,), (Node(node.name, node.op, first.inputs, node.outputs),))


def _exact(source: DType, target: DType) -> bool:
    """Whether every value of NumPy's own type ``source`` exists in ``target``."""
    if source.isbuiltin != 1 or target.isbuiltin != 1 or source.kind not in "biuf":
        return False
    if source.kind in "iu" and target.kind == "f":
        return 8 * source.itemsize <= np.finfo(target).nmant + 1
    return np.can_cast(source, target, "safe")
