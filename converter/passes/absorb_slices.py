"""Take a Slice into the convolution before it, which then computes no more than what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from mnnpy.runtime.graph.dims import Dim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axes
from mnnpy.runtime.ops.slicing import Slice

_Convolution: TypeAlias = Conv | ConvTranspose

_END = 2**31 - 1
"""Ends from here on mean that of the axis, however long."""


def absorb_slices(graph: Graph) -> Graph:
    """Slice of spatial axes behind Conv, as far as its pads can shrink by that much, and behind
    ConvTranspose, whose pads cut off too.

    Causal networks are written like that: padded on both sides, then cut on one.
    """
    return apply_rules(graph, _absorb)


def _absorb(subject: Subject, node: Node) -> Patch | None:
    kinds = (Conv, ConvTranspose)
    conv = subject.producer(node.inputs[0], kinds) if isinstance(node.op, Slice) else None
    if conv is None or not subject.private(conv.outputs[0]):
        return None
    op, y, w = conv.op, subject.tensor(conv.outputs[0]), subject.tensor(conv.inputs[1])
    cuts = None if y is None else _cuts(subject, node, y.shape)
    assert isinstance(op, _Convolution)
    if y is None or w is None or cuts is None or op.auto_pad != "NOTSET":
        return None
    if isinstance(op, ConvTranspose) and op.output_shape:
        return None
    axes = y.rank - 2
    strides = op.strides or (1,) * axes
    steps = [-s for s in strides] if isinstance(op, Conv) else [1] * axes
    own = op.pads or (0,) * (2 * axes)
    pads = tuple(pad + cut * step for pad, cut, step in zip(own, cuts, steps * 2, strict=True))
    if isinstance(op, Conv) and min(pads) < 0:
        return None
    cut = replace(op, pads=pads)
    # What is left of an axis of unknown size could be nothing, which a window does not give.
    if not all(
        isinstance(size, int) or _gives_something(cut, axis, w.shape[2 + axis])
        for axis, size in enumerate(y.shape[2:])
    ):
        return None
    return Patch((conv, node), (Node(conv.name, cut, conv.inputs, node.outputs),))


def _cuts(subject: Subject, node: Node, shape: tuple[Dim, ...]) -> tuple[int, ...] | None:
    """Pixels cut off at the begin, then at the end of every spatial axis; None where that is not
    all that the Slice does, or not known.
    """
    given = [subject.constant(name) for name in node.inputs[1:]]
    absent = [name is None for name in node.inputs[1:]]
    if any(array is None and not no for array, no in zip(given, absent, strict=True)):
        return None
    starts, ends, axes, steps = (
        None if array is None else as_ints(array) for array in (*given, None, None)[:4]
    )
    assert starts is not None and ends is not None
    which = normalize_axes(range(len(starts)) if axes is None else axes, len(shape))
    if any(step != 1 for step in steps or ()):
        return None
    begins, endings = [0] * len(shape), [0] * len(shape)
    for axis, start, end in zip(which, starts, ends, strict=True):
        cut = _cut(shape[axis], start, end)
        if cut is None or (axis < 2 and cut != (0, 0)):
            return None
        begins[axis], endings[axis] = cut
    return (*begins[2:], *endings[2:])


def _cut(size: Dim, start: int, end: int) -> tuple[int, int] | None:
    """Elements cut off an axis on both sides; None where they are not known, or all."""
    if isinstance(size, int):
        first, last, _ = slice(start, end).indices(size)
        return (first, size - last) if first < last else None
    if start < 0 or 0 <= end < _END:
        return None
    return start, max(0, -end)


def _gives_something(op: _Convolution, axis: int, taps: Dim) -> bool:
    """Whether there is an output along a spatial axis wherever there is an input."""
    if not isinstance(taps, int):
        return False
    extent = (taps - 1) * (op.dilations[axis] if op.dilations else 1) + 1
    padding = op.pads[axis] + op.pads[axis + len(op.pads) // 2]
    if isinstance(op, Conv):
        return padding >= extent - 1
    extra = op.output_padding[axis] if op.output_padding else 0
    return extent + extra - padding >= 1
