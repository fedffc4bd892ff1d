"""Remove operators that change nothing."""

from __future__ import annotations

from mnnpy.converter.passes.patterns import scalar_of
from mnnpy.converter.passes.views import VIEWS
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.casting import Cast, CastLike
from mnnpy.runtime.ops.dropout import Dropout
from mnnpy.runtime.ops.elementwise import Add, Div, Identity, Max, Mean, Min, Mul, Sub, Sum
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import Concat, Expand, Pad, Slice, Tile

_SAME_TYPE = (*VIEWS, Cast, CastLike, Expand, Tile)
"""Operators that do nothing where the type stays."""

_OF_ONE_INPUT = (Concat, Sum, Mean, Max, Min)

_NEUTRAL: dict[type[Op], float] = {Add: 0.0, Sub: 0.0, Mul: 1.0, Div: 1.0}


def remove_identities(graph: Graph) -> Graph:
    """Remove nodes whose output is their input.

    Identity, Dropout outside of training, conversions to the same type, reshaping to the same
    shape, Transpose in the same order, Slice of everything, Pad by nothing, Concat, Sum, Mean, Max
    and Min of one input, plus and minus 0, times and over 1.
    """
    return apply_rules(graph, _remove)


def _remove(subject: Subject, node: Node) -> Patch | None:
    if not node.inputs or not all(map(subject.unread, node.outputs[1:])):
        return None
    kept = _kept_input(subject, node)
    if kept is None:
        return None
    return Patch((node,), rename={node.outputs[0]: kept})


def _kept_input(subject: Subject, node: Node) -> str | None:
    """The input that the output equals, None where it equals none."""
    op, first = node.op, node.inputs[0]
    if isinstance(op, Identity) or (isinstance(op, _OF_ONE_INPUT) and len(node.inputs) == 1):
        return first
    if isinstance(op, Dropout):
        return None if _training(subject, node) else first
    if type(op) in _NEUTRAL:
        return _beside_neutral(subject, node)
    if isinstance(op, Transpose):
        perm = op.perm
        return first if perm is not None and perm == tuple(range(len(perm))) else None
    unchanged = (
        isinstance(op, _SAME_TYPE)
        or (isinstance(op, Slice) and _steps_are_one(subject, node))
        or (isinstance(op, Pad) and _pads_nothing(subject, node))
    )
    return first if unchanged and _same_type(subject, first, node.outputs[0]) else None


def _same_type(subject: Subject, x: str | None, y: str | None) -> bool:
    found = subject.tensor(x)
    return found is not None and found == subject.tensor(y)


def _training(subject: Subject, node: Node) -> bool:
    """Whether Dropout may be in training."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    if mode is None:
        return False
    known = subject.constant(mode)
    return known is None or bool(known.any())


def _beside_neutral(subject: Subject, node: Node) -> str | None:
    first, second = node.reads
    orders = [(first, second)]
    if isinstance(node.op, Add | Mul):
        orders.append((second, first))
    for kept, other in orders:
        array = subject.constant(other)
        if array is None or scalar_of(array) != _NEUTRAL[type(node.op)]:
            continue
        if array.ndim == 0 or _same_type(subject, kept, node.outputs[0]):
            return kept
    return None


def _steps_are_one(subject: Subject, node: Node) -> bool:
    if len(node.inputs) < 5 or node.inputs[4] is None:
        return True
    steps = subject.constant(node.inputs[4])
    return steps is not None and bool((steps == 1).all())


def _pads_nothing(subject: Subject, node: Node) -> bool:
    pads = subject.constant(node.inputs[1])
    return pads is not None and not pads.any()
