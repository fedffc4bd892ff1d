"""Operators that only move elements of plain tensors: views on both sides, and a strided copy.

NumPy's strides say where every element lies; the bytes are moved by generated code. One table holds
every operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.native import NativeCall, NativeSequence
from mnnpy.backends.numba_cpu.strided_copy import StridedCopy
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.blocks import DepthToSpace, SpaceToDepth
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axis
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import (
    Concat,
    Expand,
    Pad,
    Slice,
    Split,
    Tile,
    pad_borders,
    padded_places,
)

ITEMSIZES = (1, 2, 4, 8)
"""Bytes of an element that strided copies take."""

_MOST_RUNS = 64
"""Copies of one Gather: what its code may cost to make."""

Pair: TypeAlias = tuple[Array, Array]
"""Views of equal shape: where elements go, and where they come from."""

Border: TypeAlias = tuple[int, int, int]
"""An axis, and how many elements are added before and behind it."""

Pairs: TypeAlias = Callable[[Op, Buffers], Sequence[Pair]]


def _views(op: Op, buffers: Buffers) -> list[Pair]:
    """Operators whose reference gives views of its first input."""
    return list(zip(buffers.outputs, op.reference(np, *buffers.inputs), strict=False))


def _joined(op: Op, buffers: Buffers) -> list[Pair]:
    assert isinstance(op, Concat)
    y, pieces = buffers.outputs[0], [x for x in buffers.inputs if x is not None]
    axis = normalize_axis(op.axis, y.ndim)
    ends = np.cumsum([piece.shape[axis] for piece in pieces])
    targets = np.split(y, ends[:-1], axis=axis)
    pairs = enumerate(zip(targets, pieces, strict=True))
    return [pair for index, pair in pairs if index not in buffers.aliased]


def _gathered(op: Op, buffers: Buffers) -> list[Pair]:
    """A copy for every run of indices of one step."""
    assert isinstance(op, Gather)
    x, indices = buffers.inputs
    assert x is not None and indices is not None
    axis = normalize_axis(op.axis, x.ndim)
    before = (slice(None),) * axis
    y = buffers.outputs[0].reshape(*x.shape[:axis], indices.size, *x.shape[axis + 1 :])
    pairs, done = [], 0
    for run in _runs(indices % x.shape[axis]):
        target = slice(done, done + run.count)
        pairs.append((y[(*before, target)], run.of(x, axis)))
        done += run.count
    return pairs


@dataclass(frozen=True, slots=True)
class _Run:
    """Places on an axis, equally far apart; or one place some times."""

    first: int
    step: int
    count: int

    def of(self, x: Array, axis: int) -> Array:
        """A view of the elements there."""
        last = self.first + self.step * self.count
        cut = slice(self.first, last if last >= 0 else None, self.step)
        if not self.step:
            cut = slice(self.first, self.first + 1)
        shape = (*x.shape[:axis], self.count, *x.shape[axis + 1 :])
        return np.broadcast_to(x[(slice(None),) * axis + (cut,)], shape)


def _runs(places: Array) -> list[_Run]:
    """Places as runs one after another."""
    runs: list[_Run] = []
    for place in places.reshape(-1).tolist():
        run = runs[-1] if runs else _Run(place, 0, 0)
        step = place - run.first if run.count == 1 else run.step
        if run.count and place == run.first + step * run.count:
            runs[-1] = _Run(run.first, step, run.count + 1)
        else:
            runs.append(_Run(place, 0, 1))
    return runs


def _padded(op: Op, buffers: Buffers) -> list[Pair]:
    assert isinstance(op, Pad)
    x, pads, value, axes = (*buffers.inputs, None, None)[:4]
    assert x is not None and pads is not None
    given = None if axes is None else as_ints(axes)
    borders = [
        (axis, int(low), int(high)) for axis, low, high in pad_borders(as_ints(pads), given, x.ndim)
    ]
    if op.mode == "constant":
        return _surrounded(buffers.outputs[0], x, borders, value)
    return _continued(op.mode, buffers.outputs[0], x, borders)


def _surrounded(y: Array, x: Array, borders: Sequence[Border], value: Array | None) -> list[Pair]:
    """The inside, and for every axis a slab on each side of what the axes before left over."""
    filling = np.zeros((), dtype=y.dtype) if value is None else value.reshape(())
    pairs, inside = [], y
    for axis, low, high in borders:
        cuts = [low, inside.shape[axis] - high]
        before, middle, after = np.split(inside, cuts, axis=axis)
        pairs += [(slab, np.broadcast_to(filling, slab.shape)) for slab in (before, after)]
        inside = middle
    return [(inside, x), *pairs]


def _continued(mode: str, y: Array, x: Array, borders: Sequence[Border]) -> list[Pair]:
    """The inside, then for every axis, the last one first, slabs of what ``y`` holds by then."""
    pairs: list[Pair] = []
    inside = y
    for axis, low, high in borders:
        outer, size = inside, x.shape[axis]
        inside = outer[(slice(None),) * axis + (slice(low, low + size),)]
        places = low + padded_places(np, size, (low, high), mode)
        slabs = []
        for start, stop in ((0, low), (low + size, low + size + high)):
            for run in _runs(places[start:stop]):
                target = _Run(start, 1, run.count).of(outer, axis)
                slabs.append((target, run.of(outer, axis)))
                start += run.count
        pairs = [*slabs, *pairs]
    return [(inside, x), *pairs]


def _tiled(op: Op, buffers: Buffers) -> list[Pair]:
    x, repeats = buffers.inputs
    assert x is not None and repeats is not None
    y, times = buffers.outputs[0], as_ints(repeats)
    mixed = [n for pair in zip(times, x.shape, strict=True) for n in pair]
    single = x.reshape([n for dim in x.shape for n in (1, dim)])
    return [(y.reshape(mixed), np.broadcast_to(single, mixed))]


def _depth_to_space(op: Op, buffers: Buffers) -> list[Pair]:
    assert isinstance(op, DepthToSpace)
    (x,), y, b = buffers.inputs, buffers.outputs[0], op.blocksize
    assert x is not None
    (n, _, h, w), k = x.shape, y.shape[1]
    if op.mode == "DCR":
        source = x.reshape(n, b, b, k, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        source = x.reshape(n, k, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [(y.reshape(n, k, h, b, w, b), source)]


def _space_to_depth(op: Op, buffers: Buffers) -> list[Pair]:
    assert isinstance(op, SpaceToDepth)
    (x,), y, b = buffers.inputs, buffers.outputs[0], op.blocksize
    assert x is not None
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if op.mode == "DCR" else (0, 1, 3, 5, 2, 4)
    source = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return [(y.reshape(source.shape), source)]


_MOVES: Mapping[type[Op], Pairs] = {
    Transpose: _views,
    Slice: _views,
    Split: _views,
    Expand: _views,
    Concat: _joined,
    Gather: _gathered,
    Pad: _padded,
    Tile: _tiled,
    DepthToSpace: _depth_to_space,
    SpaceToDepth: _space_to_depth,
}


def _unfit_gather(task: Task) -> str | None:
    op, x, indices = task.op, task.tensor(0), task.known(1)
    assert isinstance(op, Gather)
    if indices is None:
        return "its indices are not constant"
    size = int(x.shape[normalize_axis(op.axis, x.rank)])
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        return "an index is out of range"
    runs = len(_runs(indices % size))
    return f"{runs} runs of indices" if runs > _MOST_RUNS else None


def _unfit_pad(task: Task) -> str | None:
    pads = task.known(1)
    assert isinstance(task.op, Pad)
    if pads is None or (pads < 0).any():
        return "cuts elements off"
    if task.op.mode != "constant" and not task.tensor(0).size:
        return "there is nothing to repeat"
    return None


class MoveElements(NativeKernel):
    """A strided copy for each pair of views."""

    __slots__ = ()
    scheme = "move_elements"
    operators = tuple(_MOVES)

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if type(task.op) not in _MOVES:
            return "more than a move"
        if y.dtype.hasobject or y.dtype.itemsize not in ITEMSIZES:
            return f"elements of {y} are not of {ITEMSIZES} bytes"
        deciding = [
            task.inputs[index] for index in task.op.shape_inputs if index < len(task.inputs)
        ]
        if any(value is not None and not value.constant for value in deciding):
            return "where elements go is not constant"
        if isinstance(task.op, Gather):
            return _unfit_gather(task)
        return _unfit_pad(task) if isinstance(task.op, Pad) else None

    def work(self, task: Task, config: Config) -> Work:
        written = sum(task.output(index).nbytes for index in range(len(task.outputs)))
        return Work(0, 2 * written, max(len(task.outputs), len(task.inputs)))

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        # Fed inputs that decide a shape are known, but lie in memory only when the run begins.
        known = (task.known(index) if index else None for index in range(len(task.inputs)))
        inputs = tuple(b if k is None else k for b, k in zip(buffers.inputs, known, strict=True))
        return moved(self, _MOVES[type(task.op)](task.op, replace(buffers, inputs=inputs)))


def moved(kernel: NativeKernel, pairs: Sequence[Pair]) -> NativeSequence:
    """A strided copy for each pair that holds anything."""
    calls = []
    for target, source in pairs:
        if target.size:
            copy = StridedCopy.between(4 * kernel.lanes, target, source)
            calls.append(kernel.call(copy.ir(), [target, source], copy.units))
    return NativeSequence(tuple(calls))


def cleared_ends(kernel: NativeKernel, y: Array, halo: int) -> tuple[NativeCall, ...]:
    """Zeros into the slices in front of the first and behind the last of (n, blocks, d, ...)."""
    zero = np.zeros((), dtype=np.float32)
    ends = (y[:, :, :halo], y[:, :, y.shape[2] - halo :]) if halo else ()
    pairs = [(end, np.broadcast_to(zero, end.shape)) for end in ends]
    return moved(kernel, pairs).calls
