"""Pooling over regions of interest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen


@dataclass(frozen=True, slots=True)
class MaxRoiPool(Op):
    """Maximum over each cell of a grid laid over regions, ONNX MaxRoiPool-22.

    x : (n, c, h, w), rois : (k, 5) of batch index, x1, y1, x2, y2 -> (k, c, *pooled_shape).
    """

    pooled_shape: tuple[int, ...]
    spatial_scale: float = 1.0

    def infer(self, x: Value, rois: Value) -> tuple[Type, ...]:
        _require_planes(x, rois, 5)
        return (TensorType(x.dtype, (rois.shape[0], x.shape[1], *self.pooled_shape)),)

    def reference(self, xp: ArrayModule, x: Array, rois: Array) -> tuple[Array, ...]:
        y = xp.zeros((rois.shape[0], x.shape[1], *self.pooled_shape), dtype=x.dtype)
        corners = widen(rois[:, 1:]) * widen(rois).dtype.type(self.spatial_scale)
        places = zip(rois[:, 0].tolist(), corners.tolist(), strict=True)
        for index, (image, scaled) in enumerate(places):
            left, top, right, bottom = map(_round, scaled)
            rows = _cells(top, bottom, self.pooled_shape[0], x.shape[2])
            columns = _cells(left, right, self.pooled_shape[1], x.shape[3])
            for p, row in enumerate(rows):
                for q, column in enumerate(columns):
                    cell = x[int(image), :, row, column]
                    if cell.size:
                        y[index, :, p, q] = xp.max(cell, axis=(1, 2))
        return (y,)


def _round(value: float) -> int:
    """Nearest integer, halves away from zero as in C."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _cells(first: int, last: int, count: int, limit: int) -> list[slice]:
    length = max(last - first + 1, 1)
    edges = [
        (first + i * length // count, first - (-(i + 1) * length // count)) for i in range(count)
    ]
    return [slice(min(max(a, 0), limit), min(max(b, 0), limit)) for a, b in edges]


@dataclass(frozen=True, slots=True)
class RoiAlign(Op):
    """Mean or maximum of points interpolated in each cell of regions, ONNX RoiAlign-22.

    x : (n, c, h, w), rois : (k, 4) of x1, y1, x2, y2, batch_indices : (k,) ->
    (k, c, output_height, output_width). ``sampling_ratio`` 0 takes a point per pixel.
    """

    coordinate_transformation_mode: str = "half_pixel"
    mode: str = "avg"
    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    spatial_scale: float = 1.0

    def infer(self, x: Value, rois: Value, batch_indices: Value) -> tuple[Type, ...]:
        _require_planes(x, rois, 4)
        shape = (rois.shape[0], x.shape[1], self.output_height, self.output_width)
        return (TensorType(x.dtype, shape),)

    def reference(
        self, xp: ArrayModule, x: Array, rois: Array, batch_indices: Array
    ) -> tuple[Array, ...]:
        height, width = self.output_height, self.output_width
        y = xp.zeros((rois.shape[0], x.shape[1], height, width), dtype=x.dtype)
        for index, (corners, image) in enumerate(
            zip(self._corners(rois), batch_indices.tolist(), strict=True)
        ):
            rows = self._interpolation(corners[1::2], height, x.shape[2])
            columns = self._interpolation(corners[::2], width, x.shape[3])
            if rows.shape[1] and columns.shape[1]:
                y[index] = self._pooled(xp, widen(x[image]), rows, columns).astype(x.dtype)
        return (y,)

    def _corners(self, rois: Array) -> Array:
        """Corners on the input's grid, on the host and in the regions' own precision."""
        dtype = widen(rois).dtype
        half_pixel = self.coordinate_transformation_mode == "half_pixel"
        corners = np.array(rois.tolist(), dtype=dtype).reshape(rois.shape)
        return corners * dtype.type(self.spatial_scale) - dtype.type(0.5 if half_pixel else 0)

    def _pooled(self, xp: ArrayModule, plane: Array, rows: Array, columns: Array) -> Array:
        weights = [xp.asarray(axis, dtype=plane.dtype) for axis in (rows, columns)]
        if self.mode == "avg":
            rows, columns = (xp.mean(xp.sum(axis, axis=2), axis=1) for axis in weights)
            return xp.einsum("chw,ph,qw->cpq", plane, rows, columns, optimize=True)
        # ONNX's maximum is over the weighted corners of the points, not over the points.
        corners = xp.einsum("chw,piah,qjbw->cpqijab", plane, *weights, optimize=True)
        return xp.max(corners, axis=(3, 4, 5, 6))

    def _interpolation(self, edges: Array, count: int, size: int) -> Array:
        """Weights (cell, point, corner, input) of linear interpolation along one axis."""
        length = edges[1] - edges[0]
        if self.coordinate_transformation_mode != "half_pixel":
            length = max(length, edges.dtype.type(1))
        step = length / edges.dtype.type(count)
        points = self.sampling_ratio or max(math.ceil(step), 0)
        cells = np.arange(count)[:, None] + (np.arange(points) + 0.5) / max(points, 1)
        at = edges[0] + cells.astype(edges.dtype) * step
        inside = (at >= -1) & (at <= size)
        at = np.clip(at, 0, size - 1)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, size - 1)
        weights = np.zeros((count, points, 2, size))
        for corner, (place, weight) in enumerate(((low, 1 - (at - low)), (high, at - low))):
            np.put_along_axis(
                weights[:, :, corner], place[..., None], (weight * inside)[..., None], axis=2
            )
        return weights


def _require_planes(x: Value, rois: Value, columns: int) -> None:
    if x.rank != 4 or rois.rank != 2 or differ(rois.shape[1], columns):
        raise ShapeError(
            f"regions of shape {rois.shape} for input of shape {x.shape}: "
            f"need (count, {columns}) and four axes"
        )


OPERATORS: tuple[type[Op], ...] = (MaxRoiPool, RoiAlign)
