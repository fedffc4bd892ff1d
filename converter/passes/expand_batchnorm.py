"""Write a BatchNormalization that stands alone as scale and shift."""

from __future__ import annotations

import numpy as np

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import FLOAT32, FLOAT64
from mnnpy.runtime.ops.elementwise import Add, Mul
from mnnpy.runtime.ops.normalization import BatchNormalization


def expand_batchnorm(graph: Graph) -> Graph:
    """BatchNormalization with constant statistics: Mul and Add with constants per channel.

    Narrower floats stay, as BatchNormalization computes them in float32.
    """
    return apply_rules(graph, _expand)


def _expand(subject: Subject, node: Node) -> Patch | None:
    op = node.op
    if not isinstance(op, BatchNormalization) or op.training_mode or len(node.outputs) != 1:
        return None
    x = subject.tensor(node.inputs[0])
    arrays = [subject.constant(name) for name in node.inputs[1:]]
    if x is None or x.dtype not in (FLOAT32, FLOAT64) or any(a is None for a in arrays):
        return None
    gamma, beta, mean, var = (
        a.astype(FLOAT64).reshape(a.shape + (1,) * (x.rank - 1 - a.ndim))
        for a in arrays
        if a is not None
    )
    scale = gamma / np.sqrt(var + op.epsilon)
    shift = beta - mean * scale
    y = node.outputs[0]
    product, factor, term = (subject.fresh(f"{y}.{part}") for part in ("scaled", "scale", "shift"))
    nodes = (
        Node(node.name, Mul(), (node.inputs[0], factor), (product,)),
        Node(subject.fresh(f"{node.name}.shift"), Add(), (product, term), (y,)),
    )
    return Patch((node,), nodes, {factor: scale.astype(x.dtype), term: shift.astype(x.dtype)})
