"""Pooling over sliding windows and over whole planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.convolution import tap_slices
from mnnpy.runtime.ops.numeric import lowest, widen
from mnnpy.runtime.ops.shape_math import Window, as_ints, slide_window


@dataclass(frozen=True, slots=True)
class Pool(Op):
    """Base of sliding pools: x : (n, c, *spatial) -> (n, c, *output).

    Empty ``strides``, ``pads`` and ``dilations`` mean ones, zeros and ones.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0

    def window(self, spatial: Shape) -> Window:
        """The window over the spatial axes, every parameter explicit."""
        return slide_window(
            spatial,
            self.kernel_shape,
            self.strides,
            self.pads,
            self.dilations,
            self.auto_pad,
            bool(self.ceil_mode),
        )

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(x.dtype, (*x.shape[:2], *self.window(x.shape[2:]).output)),)


@dataclass(frozen=True, slots=True)
class MaxPool(Pool):
    """Maximum of each window, ONNX MaxPool-22.

    The second output holds each maximum's place in x flattened, spatial axes in column-major order
    where ``storage_order`` is 1; -1 where a window lies in the padding.
    """

    storage_order: int = 0

    def infer(self, x: Value) -> tuple[Type, ...]:
        shape = (*x.shape[:2], *self.window(x.shape[2:]).output)
        return (TensorType(x.dtype, shape), TensorType(INT64, shape))

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        spatial = x.shape[2:]
        window = self.window(spatial)
        weights = self._weights(spatial)
        planes = xp.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(spatial))
        places = planes * prod(spatial) + _first_places(xp, window, weights)
        y = xp.full(places.shape, lowest(x.dtype), dtype=x.dtype)
        indices = xp.full(places.shape, -1, dtype=np.int64)
        inside = _taps(xp, xp.ones(spatial, dtype=np.bool_), window)
        for (tap, seen), (_, real) in zip(_taps(xp, x, window), inside, strict=True):
            shift = sum(t * d * w for t, d, w in zip(tap, window.dilations, weights, strict=True))
            better = real & ((indices < 0) | (seen > y) | (seen != seen))
            y = xp.where(better, seen, y)
            indices = xp.where(better, places + shift, indices)
        return y, indices

    def _weights(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Distance in memory between neighbours along each axis."""
        if self.storage_order:
            return tuple(prod(spatial[:axis]) for axis in range(len(spatial)))
        return tuple(prod(spatial[axis + 1 :]) for axis in range(len(spatial)))


@dataclass(frozen=True, slots=True)
class AveragePool(Pool):
    """Mean of each window, with or without its padding, ONNX AveragePool-22."""

    count_include_pad: int = 0

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        window = self.window(x.shape[2:])
        total = sum(seen for _, seen in _taps(xp, widen(x), window))
        ones = xp.ones(x.shape[2:], dtype=widen(x).dtype)
        padding = int(bool(self.count_include_pad))
        count = sum(seen for _, seen in _taps(xp, ones, window, padding))
        return ((total / count).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class LpPool(Pool):
    """p-norm of each window, ONNX LpPool-22."""

    p: int = 2

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        powers = xp.absolute(widen(x)) ** self.p
        total = sum(seen for _, seen in _taps(xp, powers, self.window(x.shape[2:])))
        return ((total ** (1 / self.p)).astype(x.dtype),)


def _taps(
    xp: ArrayModule, x: Array, window: Window, fill: int = 0
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each tap of the kernel with the elements of (..., *spatial) that it sees.

    ``fill`` stands in the padding; 0 where ceil mode lets windows reach beyond that.
    """
    spatial = x.shape[x.ndim - len(window.kernel) :]
    padding, overhang = [], []
    for size, lo, hi, count, stride, span in zip(
        spatial, window.begin, window.end, window.output, window.strides, window.extent, strict=True
    ):
        padding.append((int(lo), int(hi)))
        reach = (int(count) - 1) * stride + span
        overhang.append((0, max(reach - size - int(lo) - int(hi), 0)))
    outer = [(0, 0)] * (x.ndim - len(spatial))
    padded = xp.pad(x, outer + padding, constant_values=x.dtype.type(fill))
    padded = xp.pad(padded, outer + overhang)
    for tap in cartesian(*map(range, window.kernel)):
        yield tap, padded[(..., *tap_slices(window, tap))]


def _first_places(xp: ArrayModule, window: Window, weights: tuple[int, ...]) -> Array:
    """Place in a plane of each window's first tap."""
    rank = len(weights)
    places = xp.zeros((1,) * rank, dtype=np.int64)
    for axis, weight in enumerate(weights):
        coordinates = xp.arange(int(window.output[axis])) * window.strides[axis]
        along = (-1, *(1,) * (rank - 1 - axis))
        places = places + (coordinates - int(window.begin[axis])).reshape(along) * weight
    return places


class GlobalPool(Op):
    """Base of pools over whole planes: x : (n, c, *spatial) -> (n, c, 1, ...)."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank < 2:
            raise ShapeError(f"input of rank {x.rank}: need a batch and a channel axis")
        return (TensorType(x.dtype, x.shape[:2] + (1,) * (x.rank - 2)),)


class GlobalAveragePool(GlobalPool):
    """Mean of each plane, ONNX GlobalAveragePool-22."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        mean = xp.mean(widen(x), axis=tuple(range(2, x.ndim)), keepdims=True)
        return (mean.astype(x.dtype),)


class GlobalMaxPool(GlobalPool):
    """Maximum of each plane, ONNX GlobalMaxPool-22."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.max(x, axis=tuple(range(2, x.ndim)), keepdims=True),)


@dataclass(frozen=True, slots=True)
class GlobalLpPool(GlobalPool):
    """p-norm of each plane, ONNX GlobalLpPool-22."""

    p: int = 2

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        powers = xp.absolute(widen(x)) ** self.p
        total = xp.sum(powers, axis=tuple(range(2, x.ndim)), keepdims=True)
        return ((total ** (1 / self.p)).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class MaxUnpool(Op):
    """Maxima put back in their places among zeros, ONNX MaxUnpool-22.

    x, indices : (n, c, *pooled) -> (n, c, *spatial). Indices count in the smallest input that pools
    to x; the output is that, with zeros at the ends where ``output_shape`` is larger.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (2,)

    def infer(
        self, x: Value, indices: Value, output_shape: Value | None = None
    ) -> tuple[Type, ...]:
        if x.rank != len(self.kernel_shape) + 2:
            raise ShapeError(f"input of shape {x.shape} for a kernel of {self.kernel_shape}")
        if indices.rank != x.rank or any(map(differ, x.shape, indices.shape)):
            raise ShapeError(f"indices of shape {indices.shape} for input of shape {x.shape}")
        shape = self._unpooled(x.shape)
        if output_shape is not None:
            shape = (UNKNOWN,) * x.rank if output_shape.known is None else output_shape.ints()
        return (TensorType(x.dtype, shape),)

    def reference(
        self, xp: ArrayModule, x: Array, indices: Array, output_shape: Array | None = None
    ) -> tuple[Array, ...]:
        shape = tuple(int(dim) for dim in self._unpooled(x.shape))
        y = xp.zeros(prod(shape), dtype=x.dtype)
        y[indices.reshape(-1)] = x.reshape(-1)
        y = y.reshape(shape)
        if output_shape is None:
            return (y,)
        larger = as_ints(output_shape)
        return (xp.pad(y, [(0, big - dim) for big, dim in zip(larger, shape, strict=True)]),)

    def _unpooled(self, shape: Shape) -> Shape:
        rank = len(self.kernel_shape)
        strides = self.strides or (1,) * rank
        pads = self.pads or (0,) * (2 * rank)
        spatial: list[Dim] = [
            (dim - 1) * stride + kernel - lo - hi
            for dim, stride, kernel, lo, hi in zip(
                shape[2:], strides, self.kernel_shape, pads[:rank], pads[rank:], strict=True
            )
        ]
        return (*shape[:2], *spatial)


OPERATORS: tuple[type[Op], ...] = (
    *(MaxPool, AveragePool, LpPool, MaxUnpool),
    *(GlobalAveragePool, GlobalMaxPool, GlobalLpPool),
)
