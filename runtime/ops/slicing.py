"""Operators that cut, join, repeat and pad along axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import ClassVar

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, Shape, UndecidedError, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import STRING, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.shape_math import (
    as_ints,
    broadcast_shapes,
    normalize_axes,
    normalize_axis,
    slice_length,
)


class Slice(Op):
    """Ranges with steps along some axes, ONNX Slice-13."""

    __slots__ = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (1, 2, 3, 4)

    def infer(
        self,
        x: Value,
        starts: Value,
        ends: Value,
        axes: Value | None = None,
        steps: Value | None = None,
    ) -> tuple[Type, ...]:
        for given in (ends, axes, steps):
            if given is not None and (
                given.rank != 1 or starts.rank != 1 or differ(given.shape[0], starts.shape[0])
            ):
                raise ShapeError(f"bounds of shapes {starts.shape} and {given.shape}")
        if axes is not None and axes.known is None:
            return (TensorType(x.dtype, (UNKNOWN,) * x.rank),)
        count = int(starts.shape[0])
        which = normalize_axes(range(count) if axes is None else axes.ints(), x.rank)
        shape = list(x.shape)
        for place, axis in enumerate(which):
            try:
                start, end = starts.ints()[place], ends.ints()[place]
                step = 1 if steps is None else int(steps.ints()[place])
            except UndecidedError:
                shape[axis] = UNKNOWN
            else:
                shape[axis] = slice_length(x.shape[axis], start, end, step)
        return (TensorType(x.dtype, tuple(shape)),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        starts: Array,
        ends: Array,
        axes: Array | None = None,
        steps: Array | None = None,
    ) -> tuple[Array, ...]:
        bounds = (() if a is None else as_ints(a) for a in (starts, ends, axes, steps))
        return (x[_cuts(x.shape, *bounds)],)

    def view_offsets(
        self, inputs: Sequence[Value | None], outputs: Sequence[Type]
    ) -> tuple[int, ...] | None:
        x, *given = inputs
        (output,) = outputs
        assert x is not None and isinstance(output, TensorType)
        if not x.tensor.static or any(v is not None and not v.constant for v in given):
            return None
        shape = tuple(map(int, x.shape))
        cuts = _cuts(shape, *(() if v is None else as_ints(v.known) for v in given))
        bounds = [cut.indices(size) for cut, size in zip(cuts, shape, strict=True)]
        cut_axes = [axis for axis, dim in enumerate(output.shape) if dim != shape[axis]]
        last = max(cut_axes, default=0)
        # One stretch of memory: single elements of the axes before the last one that is cut.
        if output.size == 0 or any(dim != 1 for dim in output.shape[:last]):
            return None
        if any(step != 1 and output.shape[axis] != 1 for axis, (*_, step) in enumerate(bounds)):
            return None
        starts = (start * prod(shape[axis + 1 :]) for axis, (start, *_) in enumerate(bounds))
        return (sum(starts),)


def _cuts(
    shape: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] = (),
    steps: Sequence[int] = (),
) -> tuple[slice, ...]:
    """Slice's inputs as Python slices, whose rules on bounds are ONNX's."""
    cuts = [slice(None)] * len(shape)
    which, strides = axes or range(len(starts)), steps or (1,) * len(starts)
    for axis, start, end, step in zip(which, starts, ends, strides, strict=True):
        cuts[axis] = slice(start, end, step)
    return tuple(cuts)


@dataclass(frozen=True, slots=True)
class Split(Op):
    """Pieces along an axis, of given sizes or nearly equal ones, ONNX Split-18."""

    num_outputs: int
    axis: int = 0
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, sizes: Value | None = None) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, x.rank)
        pieces: Sequence[Dim]
        if sizes is not None and sizes.known is None:
            pieces = (UNKNOWN,) * self.num_outputs
        else:
            pieces = self.sizes(x.shape[axis], None if sizes is None else sizes.ints())
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        return tuple(TensorType(x.dtype, (*before, size, *after)) for size in pieces)

    def sizes(self, length: Dim, given: Sequence[Dim] | None) -> Sequence[Dim]:
        """Size of every piece. Raises ``ShapeError`` where given sizes do not add up."""
        if given is not None:
            if len(given) != self.num_outputs or differ(sum(given), length):
                raise ShapeError(
                    f"pieces {tuple(given)} do not split {length} into {self.num_outputs}"
                )
            return given
        if isinstance(length, int) and not 0 < self.num_outputs <= max(length, 1):
            raise ShapeError(f"{length} elements do not split into {self.num_outputs} pieces")
        size = -(-length // self.num_outputs)
        if isinstance(length, int) and isinstance(size, int):
            left = (length - place * size for place in range(self.num_outputs))
            return tuple(max(0, min(size, rest)) for rest in left)
        return (*(size,) * (self.num_outputs - 1), length - size * (self.num_outputs - 1))

    def reference(self, xp: ArrayModule, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
        axis = normalize_axis(self.axis, x.ndim)
        before, start = (slice(None),) * axis, 0
        pieces = []
        for size in self.sizes(x.shape[axis], None if sizes is None else as_ints(sizes)):
            end = start + int(size)
            pieces.append(x[(*before, slice(start, end))])
            start = end
        return tuple(pieces)

    def view_offsets(
        self, inputs: Sequence[Value | None], outputs: Sequence[Type]
    ) -> tuple[int, ...] | None:
        x = inputs[0]
        assert x is not None
        axis = normalize_axis(self.axis, x.rank)
        if not x.tensor.static or any(dim != 1 for dim in x.shape[:axis]):
            return None
        sizes = [piece.size for piece in outputs if isinstance(piece, TensorType)]
        return tuple(accumulate(sizes[:-1], initial=0))


@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Inputs joined along an axis, ONNX Concat-13."""

    axis: int

    def infer(self, *xs: Value) -> tuple[Type, ...]:
        require_same_dtype(*xs)
        axis = normalize_axis(self.axis, xs[0].rank)
        return (TensorType(xs[0].dtype, concatenated([x.shape for x in xs], axis)),)

    def reference(self, xp: ArrayModule, *xs: Array) -> tuple[Array, ...]:
        return (xp.concatenate(xs, axis=self.axis),)


def concatenated(shapes: Sequence[Shape], axis: int) -> Shape:
    """Shape of tensors joined along ``axis``. Raises ``ShapeError`` where other axes differ."""
    result = list(shapes[0])
    for shape in shapes[1:]:
        if len(shape) != len(result):
            raise ShapeError(f"cannot join ranks {len(result)} and {len(shape)}")
        for place, dim in enumerate(shape):
            if place == axis:
                result[place] = result[place] + dim
            elif differ(result[place], dim):
                listed = ", ".join(map(str, shapes))
                raise ShapeError(f"shapes {listed} differ outside of axis {axis}")
            elif isinstance(dim, int):
                result[place] = dim
    return tuple(result)


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Borders added (or cut off, where negative) around a tensor, ONNX Pad-25."""

    mode: str = "constant"
    shape_inputs: ClassVar[tuple[int, ...]] = (1, 3)

    def infer(
        self, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None
    ) -> tuple[Type, ...]:
        if self.mode not in ("constant", "reflect", "edge", "wrap"):
            raise ShapeError(f"padding mode {self.mode!r} is none of constant, reflect, edge, wrap")
        if value is not None and any(differ(dim, 1) for dim in value.shape):
            raise ShapeError(f"a padding value of shape {value.shape}: it is a scalar")
        if pads.known is None or (axes is not None and axes.known is None):
            return (TensorType(x.dtype, (UNKNOWN,) * x.rank),)
        shape = list(x.shape)
        given = None if axes is None else axes.ints()
        for axis, low, high in pad_borders(pads.ints(), given, x.rank):
            shape[axis] = shape[axis] + low + high
        if any(isinstance(dim, int) and dim < 0 for dim in shape):
            raise ShapeError(f"pads {pads.ints()} cut more off {x.shape} than there is")
        return (TensorType(x.dtype, tuple(shape)),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        pads: Array,
        value: Array | None = None,
        axes: Array | None = None,
    ) -> tuple[Array, ...]:
        given = None if axes is None else as_ints(axes)
        borders = list(pad_borders(as_ints(pads), given, x.ndim))
        if self.mode == "constant":
            if value is None:
                value = xp.asarray("" if x.dtype == STRING else 0, dtype=x.dtype)
            return (_surround(xp, x, borders, value),)
        for axis, low, high in borders:
            places = padded_places(xp, x.shape[axis], (int(low), int(high)), self.mode)
            x = xp.take(x, places, axis=axis)
        return (x,)


def pad_borders(
    pads: Sequence[Dim], axes: Sequence[Dim] | None, rank: int
) -> Iterator[tuple[int, Dim, Dim]]:
    """(axis, elements before, elements after) from ONNX's [begins..., ends...]."""
    which = normalize_axes(range(rank) if axes is None else axes, rank)
    if len(pads) != 2 * len(which):
        raise ShapeError(f"{len(pads)} pads for {len(which)} axes: need two for each")
    return zip(which, pads[: len(which)], pads[len(which) :], strict=True)


def _surround(
    xp: ArrayModule, x: Array, borders: Sequence[tuple[int, Dim, Dim]], value: Array
) -> Array:
    shape = list(x.shape)
    source, target = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for axis, low, high in borders:
        start, size = int(low), x.shape[axis]
        shape[axis] = start + size + int(high)
        first, last = max(start, 0), min(start + size, shape[axis])
        target[axis] = slice(first, max(first, last))
        source[axis] = slice(first - start, max(first, last) - start)
    y = xp.empty(tuple(shape), dtype=x.dtype)
    y[...] = value.reshape(()).astype(x.dtype)
    y[tuple(target)] = x[tuple(source)]
    return y


def padded_places(xp: ArrayModule, size: int, pads: tuple[int, int], mode: str) -> Array:
    """Where the elements of a padded axis come from: places within ``[0, size)``."""
    places = xp.arange(-pads[0], size + pads[1])
    if mode == "edge":
        return xp.clip(places, 0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    places = places % period
    return xp.minimum(places, period - places) if size > 1 else places


class Tile(Op):
    """The tensor repeated along every axis, ONNX Tile-13."""

    __slots__ = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, repeats: Value) -> tuple[Type, ...]:
        if differ(repeats.shape[0], x.rank):
            raise ShapeError(f"{repeats.shape[0]} repeats for a tensor of rank {x.rank}")
        if repeats.known is None:
            return (TensorType(x.dtype, (UNKNOWN,) * x.rank),)
        shape = tuple(dim * times for dim, times in zip(x.shape, repeats.ints(), strict=True))
        return (TensorType(x.dtype, shape),)

    def reference(self, xp: ArrayModule, x: Array, repeats: Array) -> tuple[Array, ...]:
        return (xp.tile(x, as_ints(repeats)),)


class Expand(Op):
    """Broadcast with a shape in both directions, ONNX Expand-13."""

    __slots__ = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, shape: Value) -> tuple[Type, ...]:
        if shape.known is None:
            rank = max(x.rank, int(shape.shape[0]))
            return (TensorType(x.dtype, (UNKNOWN,) * rank),)
        return (TensorType(x.dtype, broadcast_shapes(x.shape, shape.ints())),)

    def reference(self, xp: ArrayModule, x: Array, shape: Array) -> tuple[Array, ...]:
        return (xp.broadcast_to(x, broadcast_shapes(x.shape, as_ints(shape))),)


@dataclass(frozen=True, slots=True)
class CenterCropPad(Op):
    """Crop or zero-pad to a size around the centre, ONNX CenterCropPad-18."""

    axes: tuple[int, ...] | None = None
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, shape: Value) -> tuple[Type, ...]:
        result = list(x.shape)
        axes = normalize_axes(range(x.rank) if self.axes is None else self.axes, x.rank)
        sizes = (UNKNOWN,) * len(axes) if shape.known is None else shape.ints()
        for axis, size in zip(axes, sizes, strict=True):
            result[axis] = size
        return (TensorType(x.dtype, tuple(result)),)

    def reference(self, xp: ArrayModule, x: Array, shape: Array) -> tuple[Array, ...]:
        borders: list[tuple[int, Dim, Dim]] = []
        axes = normalize_axes(range(x.ndim) if self.axes is None else self.axes, x.ndim)
        for axis, size in zip(axes, as_ints(shape), strict=True):
            extra = size - x.shape[axis]
            # Padding puts the odd element at the end; cropping takes it from there too.
            before = extra // 2 if extra > 0 else -(-extra // 2)
            borders.append((axis, before, extra - before))
        return (_surround(xp, x, borders, xp.zeros((), dtype=x.dtype)),)


OPERATORS: tuple[type[Op], ...] = (Slice, Split, Concat, Pad, Tile, Expand, CenterCropPad)
