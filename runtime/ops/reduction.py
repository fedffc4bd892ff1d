"""Reductions along axes, softmax, running sums and selection.

Floats narrower than 32 bits are computed in float32, except in Softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import SameType
from mnnpy.runtime.ops.numeric import largest, log_softmax, smallest, softmax, widen
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axes, normalize_axis, reduced_shape


@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """Base of reductions over ``axes``, an optional input; all axes where it is absent or empty.

    With ``noop_with_empty_axes``, an absent or empty ``axes`` means no axis.
    """

    keepdims: int = 1
    noop_with_empty_axes: int = 0
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def axes(self, axes: tuple[Dim, ...], rank: int) -> tuple[int, ...]:
        """Reduced axes, counted from the front, of what the input ``axes`` holds."""
        if not axes and not self.noop_with_empty_axes:
            return tuple(range(rank))
        return normalize_axes(axes, rank)

    def infer(self, x: Value, axes: Value | None = None) -> tuple[Type, ...]:
        if axes is None or axes.shape == (0,):
            reduced = self.axes((), x.rank)
        elif axes.known is not None:
            reduced = self.axes(axes.ints(), x.rank)
        elif self.keepdims:
            return (TensorType(x.dtype, (UNKNOWN,) * x.rank),)
        else:
            return (TensorType(x.dtype, (UNKNOWN,) * (x.rank - int(axes.shape[0]))),)
        return (TensorType(x.dtype, reduced_shape(x.shape, reduced, bool(self.keepdims))),)

    def reference(self, xp: ArrayModule, x: Array, axes: Array | None = None) -> tuple[Array, ...]:
        reduced = self.axes(() if axes is None else as_ints(axes), x.ndim)
        y = self.reduce(xp, widen(x), reduced)
        if not self.keepdims:
            y = y.reshape(reduced_shape(x.shape, reduced, keepdims=False))
        return (y.astype(x.dtype, copy=False),)

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        """The reduction, keeping reduced axes with size one; the result is cast to x's type."""
        raise NotImplementedError(self.kind)


class ReduceSum(Reduce):
    """Sum, ONNX ReduceSum-13."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.sum(x, axis=axes, keepdims=True, dtype=x.dtype)


class ReduceProd(Reduce):
    """Product, ONNX ReduceProd-18."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.prod(x, axis=axes, keepdims=True, dtype=x.dtype)


class ReduceMean(Reduce):
    """Arithmetic mean, truncated for integers, ONNX ReduceMean-18."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        count = prod(x.shape[axis] for axis in axes)
        dtype = np.float64 if x.dtype.kind in "iu" else x.dtype
        return xp.sum(x, axis=axes, keepdims=True, dtype=dtype) / count


class ReduceMax(Reduce):
    """Maximum, ONNX ReduceMax-20; the least number of the type where there are no elements."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return largest(xp, x, axes)


class ReduceMin(Reduce):
    """Minimum, ONNX ReduceMin-20; the greatest number of the type where there are no elements."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return smallest(xp, x, axes)


class ReduceL1(Reduce):
    """Sum of magnitudes, ONNX ReduceL1-18."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.sum(xp.absolute(x), axis=axes, keepdims=True, dtype=x.dtype)


class ReduceL2(Reduce):
    """Square root of the sum of squares, ONNX ReduceL2-18."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.sqrt(xp.sum(x * x, axis=axes, keepdims=True))


class ReduceSumSquare(Reduce):
    """Sum of squares, ONNX ReduceSumSquare-18."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.sum(x * x, axis=axes, keepdims=True, dtype=x.dtype)


class ReduceLogSum(Reduce):
    """Logarithm of the sum, ONNX ReduceLogSum-28."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        return xp.log(xp.sum(x, axis=axes, keepdims=True))


class ReduceLogSumExp(Reduce):
    """Logarithm of the sum of exponentials, without overflow, ONNX ReduceLogSumExp-28."""

    __slots__ = ()

    def reduce(self, xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
        top = largest(xp, x, axes)
        top = xp.where(xp.isfinite(top), top, 0)
        return xp.log(xp.sum(xp.exp(x - top), axis=axes, keepdims=True)) + top


@dataclass(frozen=True, slots=True)
class ArgReduce(Op):
    """Base of places along ``axis``, the first or the last of equals."""

    axis: int = 0
    keepdims: int = 1
    select_last_index: int = 0

    def infer(self, x: Value) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, x.rank)
        return (TensorType(INT64, reduced_shape(x.shape, (axis,), bool(self.keepdims))),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        if self.select_last_index:
            flipped = self.first(xp, xp.flip(x, axis=self.axis))
            place = x.shape[self.axis] - 1 - flipped
        else:
            place = self.first(xp, x)
        place = place.astype(np.int64)
        return (xp.expand_dims(place, self.axis) if self.keepdims else place,)

    def first(self, xp: ArrayModule, x: Array) -> Array:
        """Place of the first of equals, without the axis."""
        raise NotImplementedError(self.kind)


class ArgMax(ArgReduce):
    """Place of the maximum along ``axis``, ONNX ArgMax-13."""

    __slots__ = ()

    def first(self, xp: ArrayModule, x: Array) -> Array:
        return xp.argmax(x, axis=self.axis)


class ArgMin(ArgReduce):
    """Place of the minimum along ``axis``, ONNX ArgMin-13."""

    __slots__ = ()

    def first(self, xp: ArrayModule, x: Array) -> Array:
        return xp.argmin(x, axis=self.axis)


@dataclass(frozen=True, slots=True)
class SoftmaxLike(SameType):
    """Base of softmax and its relatives along ``axis``.

    With ``trailing``, over all axes from ``axis`` on together (before opset 13).
    """

    axis: int = -1
    trailing: bool = False

    def axes(self, rank: int) -> tuple[int, ...]:
        """Axes over which elements compete, counted from the front."""
        axis = normalize_axis(self.axis, rank)
        return tuple(range(axis, rank)) if self.trailing else (axis,)

    def infer(self, x: Value) -> tuple[Type, ...]:
        self.axes(x.rank)
        return (x.tensor,)


class Softmax(SoftmaxLike):
    """Exponentials scaled to the sum one, ONNX Softmax-13."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (softmax(xp, x, self.axes(x.ndim)),)


class LogSoftmax(SoftmaxLike):
    """Logarithm of Softmax, ONNX LogSoftmax-13."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (log_softmax(xp, widen(x), self.axes(x.ndim)).astype(x.dtype, copy=False),)


class Hardmax(SoftmaxLike):
    """One at the first maximum, zero elsewhere, ONNX Hardmax-13."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        axes = self.axes(x.ndim)
        flat = x.reshape(*x.shape[: axes[0]], -1, *x.shape[axes[-1] + 1 :])
        places = xp.arange(flat.shape[axes[0]])
        places = places.reshape(-1, *(1,) * (flat.ndim - axes[0] - 1))
        top = xp.expand_dims(xp.argmax(flat, axis=axes[0]), axes[0])
        return ((places == top).astype(x.dtype).reshape(x.shape),)


@dataclass(frozen=True, slots=True)
class Cumulative(Op):
    """Base of running results along the axis that the second input names.

    ``exclusive`` leaves each element out of its own result; ``reverse`` starts at the end.
    """

    exclusive: int = 0
    reverse: int = 0
    start: ClassVar[int]
    """The result of no elements."""

    def infer(self, x: Value, axis: Value) -> tuple[Type, ...]:
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array, axis: Array) -> tuple[Array, ...]:
        (along,) = normalize_axes(as_ints(axis), x.ndim)
        y = xp.flip(widen(x), axis=along) if self.reverse else widen(x)
        if self.exclusive:
            first = xp.take(y, xp.arange(min(1, y.shape[along])), axis=along)
            before = tuple(slice(-1) if i == along else slice(None) for i in range(x.ndim))
            y = xp.concatenate([xp.full_like(first, self.start), y[before]], axis=along)
        y = self.accumulate(xp, y, along)
        return ((xp.flip(y, axis=along) if self.reverse else y).astype(x.dtype),)

    def accumulate(self, xp: ArrayModule, x: Array, axis: int) -> Array:
        """The inclusive running result."""
        raise NotImplementedError(self.kind)


class CumSum(Cumulative):
    """Running sum, ONNX CumSum-14."""

    __slots__ = ()
    start: ClassVar[int] = 0

    def accumulate(self, xp: ArrayModule, x: Array, axis: int) -> Array:
        return xp.cumsum(x, axis=axis, dtype=x.dtype)


class CumProd(Cumulative):
    """Running product, ONNX CumProd-26."""

    __slots__ = ()
    start: ClassVar[int] = 1

    def accumulate(self, xp: ArrayModule, x: Array, axis: int) -> Array:
        return xp.cumprod(x, axis=axis, dtype=x.dtype)


@dataclass(frozen=True, slots=True)
class TopK(Op):
    """The k largest or smallest elements along ``axis`` and their places, ONNX TopK-24.

    Of equal elements, the one that comes first is taken first; NaN counts as the largest.
    """

    axis: int = -1
    largest: int = 1
    sorted: int = 1
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, k: Value) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, x.rank)
        count = UNKNOWN if k.known is None else k.ints()[0]
        size = x.shape[axis]
        if isinstance(count, int) and isinstance(size, int) and not 0 <= count <= size:
            raise ShapeError(f"the top {count} of {size} elements along axis {axis}")
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        return (TensorType(x.dtype, shape), TensorType(INT64, shape))

    def reference(self, xp: ArrayModule, x: Array, k: Array) -> tuple[Array, ...]:
        order = _stable_order(xp, x, self.axis, bool(self.largest))
        (count,) = as_ints(k)
        indices = xp.take(order, xp.arange(count), axis=self.axis).astype(np.int64)
        return xp.take_along_axis(x, indices, axis=self.axis), indices


def _stable_order(xp: ArrayModule, x: Array, axis: int, descending: bool) -> Array:
    """Places of the elements in sorted order, equal elements in their own order."""
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    # Equal elements of the reversed array come last first; reversing the order mends that.
    backwards = xp.argsort(xp.flip(x, axis=axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(backwards, axis=axis)


OPERATORS: tuple[type[Op], ...] = (
    *(ReduceSum, ReduceProd, ReduceMean, ReduceMax, ReduceMin, ReduceL1, ReduceL2),
    *(ReduceSumSquare, ReduceLogSum, ReduceLogSumExp, ArgMax, ArgMin),
    *(Softmax, LogSoftmax, Hardmax, CumSum, CumProd, TopK),
)
