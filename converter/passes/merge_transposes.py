"""Merge chains of Transposes."""

from __future__ import annotations

from mnnpy.converter.passes.views import VIEWS
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.shaping import Transpose


def merge_transposes(graph: Graph) -> Graph:
    """Make one Transpose of two behind each other, none where they cancel.

    A Transpose of matrices between a Reshape that joins the leading axes and one that parts them
    again is a Transpose by itself.
    """
    return apply_rules(graph, _merge, _within_joined_axes)


def permutation(subject: Subject, node: Node) -> tuple[int, ...] | None:
    """The order of a Transpose's axes, None where the rank is not known."""
    x = subject.tensor(node.inputs[0])
    if not isinstance(node.op, Transpose):
        return None
    if x is None:
        return node.op.perm
    return node.op.axes(x.rank)


def _merge(subject: Subject, node: Node) -> Patch | None:
    first = subject.producer(node.inputs[0], Transpose) if isinstance(node.op, Transpose) else None
    if first is None:
        return None
    before, after = permutation(subject, first), permutation(subject, node)
    if before is None or after is None:
        return None
    perm = tuple(before[axis] for axis in after)
    (x,), (y,) = first.reads, node.outputs
    if perm == tuple(range(len(perm))) and subject.can_rename(y, x):
        return Patch((node,), rename={y: x})
    return Patch((node,), (Node(node.name, Transpose(perm), (x,), (y,)),))


def _within_joined_axes(subject: Subject, node: Node) -> Patch | None:
    """(a, b, c, d) -> (ab, c, d) -> (ab, d, c) -> (a, b, d, c)."""
    middle = subject.producer(node.inputs[0], Transpose) if isinstance(node.op, VIEWS) else None
    first = None if middle is None else subject.producer(middle.inputs[0], VIEWS)
    if middle is None or first is None or permutation(subject, middle) != (0, 2, 1):
        return None
    x, y = subject.tensor(first.inputs[0]), subject.tensor(node.outputs[0])
    matrices = subject.tensor(first.outputs[0])
    if (
        x is None
        or y is None
        or matrices is None
        or x.rank < 3
        or matrices.shape[1:] != x.shape[-2:]
    ):
        return None
    if y.shape != (*x.shape[:-2], x.shape[-1], x.shape[-2]):
        return None
    perm = (*range(x.rank - 2), x.rank - 1, x.rank - 2)
    return Patch((node,), (Node(node.name, Transpose(perm), first.inputs[:1], node.outputs),))
