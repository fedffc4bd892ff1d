"""Sampling at positions that a grid gives, and making such grids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as cartesian
from typing import ClassVar, NamedTuple

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.resize import cubic_kernel, linear_kernel
from mnnpy.runtime.ops.shape_math import as_ints


class Taps(NamedTuple):
    """Elements of one axis that a position reads: each (taps, n, *out)."""

    places: Array
    weights: Array
    inside: Array


@dataclass(frozen=True, slots=True)
class GridSample(Op):
    """Interpolation at given positions, ONNX GridSample-22.

    x : (n, c, *spatial), grid : (n, *out, axes), positions from -1 to 1, last axis of x first
    -> (n, c, *out).
    """

    mode: str = "linear"
    padding_mode: str = "zeros"
    align_corners: int = 0

    def infer(self, x: Value, grid: Value) -> tuple[Type, ...]:
        if self.mode not in ("nearest", "linear", "cubic"):
            raise ShapeError(f"interpolation mode {self.mode!r} is none of nearest, linear, cubic")
        if self.padding_mode not in ("zeros", "border", "reflection"):
            raise ShapeError(f"padding_mode {self.padding_mode!r} does not exist")
        if x.rank != grid.rank or differ(grid.shape[-1], x.rank - 2):
            raise ShapeError(f"a grid of shape {grid.shape} does not sample {x.shape}")
        return (TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1])),)

    def reference(self, xp: ArrayModule, x: Array, grid: Array) -> tuple[Array, ...]:
        spatial = x.shape[2:]
        coordinates = xp.moveaxis(widen(grid), -1, 0)[::-1]
        axes = [self._taps(xp, c, size) for c, size in zip(coordinates, spatial, strict=True)]
        batch = xp.arange(len(x)).reshape(-1, *(1,) * len(spatial))
        rows = xp.moveaxis(widen(x), 1, -1)
        y = xp.zeros((), dtype=rows.dtype)
        for taps in cartesian(*(range(len(axis.places)) for axis in axes)):
            places, weight = [batch], xp.ones((), dtype=rows.real.dtype)
            inside = xp.ones((), dtype=np.bool_)
            for axis, tap in zip(axes, taps, strict=True):
                places.append(axis.places[tap])
                weight = weight * axis.weights[tap].astype(rows.real.dtype)
                inside = inside & axis.inside[tap]
            y = y + xp.where(inside[..., None], rows[tuple(places)] * weight[..., None], 0)
        return (xp.moveaxis(y, -1, 1).astype(x.dtype),)

    def _taps(self, xp: ArrayModule, coordinate: Array, size: int) -> Taps:
        """The neighbours of positions -1..1 along an axis of ``size`` elements."""
        scaled = (coordinate + 1) * ((size - 1) if self.align_corners else size) / 2
        position = scaled if self.align_corners else scaled - 0.5
        if self.mode == "nearest":
            places = xp.rint(position)[None]
            weights = xp.ones_like(places)
        else:
            reach = 0 if self.mode == "linear" else 1
            if self.mode == "linear":
                position = self._padded(xp, position, size)
            steps = xp.arange(-reach, reach + 2).reshape(-1, *(1,) * position.ndim)
            places = xp.floor(position) + steps
            distance = places - position
            cubic = self.mode == "cubic"
            weights = cubic_kernel(xp, distance, -0.75) if cubic else linear_kernel(xp, distance)
        places = self._padded(xp, places, size)
        inside = (places >= 0) & (places <= size - 1)
        return Taps(xp.clip(xp.nan_to_num(places), 0, size - 1).astype(np.int64), weights, inside)

    def _padded(self, xp: ArrayModule, position: Array, size: int) -> Array:
        """Positions outside brought inside, unless outside is zero."""
        if self.padding_mode == "border":
            return xp.clip(position, 0, size - 1)
        if self.padding_mode == "reflection":
            low, span = (0.0, size - 1.0) if self.align_corners else (-0.5, float(size))
            if span == 0:
                return position * 0
            turned = xp.absolute(position - low) % (2 * span)
            position = low + xp.minimum(turned, 2 * span - turned)
            return xp.clip(position, 0, size - 1)
        return position


@dataclass(frozen=True, slots=True)
class AffineGrid(Op):
    """Grid of positions under affine maps, ONNX AffineGrid-20.

    theta : (n, axes, axes + 1), size : (n, c, *spatial) -> (n, *spatial, axes).
    """

    align_corners: int = 0
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, theta: Value, size: Value) -> tuple[Type, ...]:
        axes = int(size.shape[0]) - 2
        if theta.rank != 3 or differ(theta.shape[1], axes) or differ(theta.shape[2], axes + 1):
            raise ShapeError(f"maps of shape {theta.shape} for {axes} axes: need (n, axes, axes+1)")
        spatial = (UNKNOWN,) * axes if size.known is None else size.ints()[2:]
        return (TensorType(theta.dtype, (theta.shape[0], *spatial, axes)),)

    def reference(self, xp: ArrayModule, theta: Array, size: Array) -> tuple[Array, ...]:
        spatial = as_ints(size)[2:]
        maps = widen(theta)
        lines = [self._line(xp, length).astype(maps.dtype) for length in spatial]
        mesh = xp.meshgrid(*lines, indexing="ij")
        # Positions are (..., y, x) by axis; a map takes (x, y, ..., 1).
        points = xp.stack([*mesh[::-1], xp.ones(spatial, dtype=maps.dtype)], axis=-1)
        flat = xp.matmul(points.reshape(-1, len(spatial) + 1), xp.swapaxes(maps, 1, 2))
        return (flat.reshape(len(maps), *spatial, len(spatial)).astype(theta.dtype),)

    def _line(self, xp: ArrayModule, length: int) -> Array:
        """Positions along an axis: from -1 to 1, or the centres of equal cells between."""
        if self.align_corners:
            return xp.linspace(-1, 1, length) if length > 1 else xp.zeros(1)
        return (2 * xp.arange(length) + 1) / length - 1


OPERATORS: tuple[type[Op], ...] = (GridSample, AffineGrid)
