"""Merge chains of operators that only give another shape."""

from __future__ import annotations

from mnnpy.converter.passes.views import VIEWS, reshaped_to
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules


def merge_reshapes(graph: Graph) -> Graph:
    """Make one Reshape of Reshape, Flatten, Squeeze and Unsqueeze behind each other; none, where
    the last gives back the first one's shape.
    """
    return apply_rules(graph, _merge)


def _merge(subject: Subject, node: Node) -> Patch | None:
    first = subject.producer(node.inputs[0], VIEWS) if isinstance(node.op, VIEWS) else None
    if first is None or first.inputs[0] is None:
        return None
    source = first.inputs[0]
    x, y = subject.tensor(source), subject.tensor(node.outputs[0])
    if x is None or y is None:
        return None
    if x == y:
        return Patch((node,), rename={node.outputs[0]: source})
    return reshaped_to(subject, (node,), source, y.shape)
