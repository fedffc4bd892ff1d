"""Convolutions whose windows are bent by data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import Window, product, slide_window


@dataclass(frozen=True, slots=True)
class DeformConv(Op):
    """Convolution that reads x between its points, moved by an offset, ONNX DeformConv-22.

    x : (n, c, *spatial), w : (k, c / group, *kernel), offset : (n, offset_group * taps * axes,
    *output) in points, b : (k,), mask : (n, offset_group * taps, *output), factors
    -> (n, k, *output). Outside of x there are zeros.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    offset_group: int = 1

    def window(self, spatial: Shape, kernel: Shape) -> Window:
        """The window before it is bent."""
        return slide_window(spatial, kernel, self.strides, self.pads, self.dilations)

    def infer(
        self,
        x: Value,
        w: Value,
        offset: Value,
        b: Value | None = None,
        mask: Value | None = None,
    ) -> tuple[Type, ...]:
        require_same_dtype(x, w, offset)
        conv = Conv(self.strides, self.pads, self.dilations, self.group)
        (y,) = conv.infer(x, w, b)
        assert isinstance(y, TensorType)
        rows = product(w.shape[2:]) * self.offset_group
        for name, value, count in (("offset", offset, rows * (x.rank - 2)), ("mask", mask, rows)):
            wanted: Shape = (x.shape[0], count, *y.shape[2:])
            if value is None:
                continue
            if value.rank != x.rank or any(map(differ, value.shape, wanted)):
                raise ShapeError(f"{name} has the shape {value.shape}, needed is {wanted}")
        return (y,)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        w: Array,
        offset: Array,
        b: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, ...]:
        dtype, (n, c, *spatial), k = x.dtype, x.shape, w.shape[0]
        x, w, offset = widen(x), widen(w), widen(offset)
        window = self.window(tuple(spatial), w.shape[2:])
        output = tuple(int(count) for count in window.output)
        taps, axes = prod(window.kernel), len(spatial)
        offset = offset.reshape(n, self.offset_group, taps, axes, *output)
        if mask is not None:
            mask = widen(mask).reshape(n, self.offset_group, taps, 1, *output)
        x = x.reshape(n, self.offset_group, -1, *spatial)
        y = xp.zeros((n, self.group, k // self.group, prod(output)), dtype=x.dtype)
        for index, tap in enumerate(cartesian(*map(range, window.kernel))):
            straight = _places(xp, window, tap)
            places = [straight[axis] + offset[:, :, index, axis] for axis in range(axes)]
            seen = interpolated(xp, x, places)
            if mask is not None:
                seen = seen * mask[:, :, index]
            columns = seen.reshape(n, self.group, c // self.group, -1)
            y += xp.matmul(w[(..., *tap)].reshape(1, self.group, k // self.group, -1), columns)
        y = y.reshape(n, k, *output)
        if b is not None:
            y = y + widen(b).reshape(-1, *(1,) * axes)
        return (y.astype(dtype),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        return Conv().macs(inputs, outputs)


def _places(xp: ArrayModule, window: Window, tap: Sequence[int]) -> list[Array]:
    """Per axis, the points of x that a tap reads, shaped to broadcast over the output."""
    rank = len(tap)
    places = []
    for axis in range(rank):
        count, stride = int(window.output[axis]), window.strides[axis]
        first = tap[axis] * window.dilations[axis] - int(window.begin[axis])
        points = first + stride * xp.arange(count)
        places.append(points.reshape(*(-1 if a == axis else 1 for a in range(rank))))
    return places


def interpolated(xp: ArrayModule, x: Array, places: Sequence[Array]) -> Array:
    """x : (n, g, c, *spatial) read linearly at places (n, g, *output) per axis, zeros outside.

    -> (n, g, c, *output).
    """
    n, g, c, *spatial = x.shape
    flat = x.reshape(n, g, c, -1)
    floors = [xp.floor(place) for place in places]
    total = xp.zeros((n, g, c, *places[0].shape[2:]), dtype=x.dtype)
    for corner in cartesian((0, 1), repeat=len(spatial)):
        weight = xp.ones(places[0].shape, dtype=x.dtype)
        index = xp.zeros(places[0].shape, dtype=np.int64)
        for size, place, low, step in zip(spatial, places, floors, corner, strict=True):
            point = low + step
            inside = (point >= 0) & (point < size)
            weight = xp.where(inside, weight * (1 - xp.absolute(place - point)), 0)
            index = index * size + xp.clip(point, 0, size - 1).astype(np.int64)
        index = xp.broadcast_to(index.reshape(n, g, 1, -1), (n, g, c, index[0, 0].size))
        values = xp.take_along_axis(flat, index, axis=3).reshape(total.shape)
        total = total + weight[:, :, None] * values
    return total


OPERATORS: tuple[type[Op], ...] = (DeformConv,)
