"""Resizing by interpolation along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, Shape
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import wide
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axes


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """One axis of a Resize: sizes, the scale between them and the cropped part (0 to 1)."""

    axis: int
    size: Dim
    output: Dim
    scale: float | None
    start: float = 0.0
    end: float = 1.0

    def original(self, xp: ArrayModule, mode: str, places: Array) -> Array:
        """Coordinates in the input of ``places`` in the output (coordinate_transformation_mode)."""
        size, output, scale = int(self.size), int(self.output), places.dtype.type(self.scale)
        last = size - 1
        if mode == "half_pixel" or (mode == "pytorch_half_pixel" and output > 1):
            return (places + 0.5) / scale - 0.5
        if mode == "half_pixel_symmetric":
            offset = size / 2 * (1 - output / (scale * size))
            return offset + ((places + 0.5) / scale - 0.5)
        if mode == "tf_half_pixel_for_nn":
            return (places + 0.5) / scale
        if mode == "asymmetric":
            return places / scale
        if mode == "align_corners":
            # ONNX's cases take the fractional length here, ONNX Runtime takes ``output``.
            length = size * scale
            return places * last / (length - 1) if length != 1 else places * 0
        if mode == "tf_crop_and_resize":
            if output == 1:
                return places + 0.5 * (self.start + self.end) * last
            return self.start * last + places * (self.end - self.start) * last / (output - 1)
        if mode == "pytorch_half_pixel":
            return places * 0
        raise ShapeError(f"coordinate_transformation_mode {mode!r} does not exist")


@dataclass(frozen=True, slots=True)
class Resize(Op):
    """Interpolation along axes, ONNX Resize-19.

    x : any shape; roi : starts then ends, for tf_crop_and_resize; one of scales and sizes, for
    ``axes`` or all axes. An empty ``scales`` counts as absent. Upsample and older versions are this
    with other attributes; their ``nearest_mode`` is "simple": floor, ceil where an axis shrinks.
    """

    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    extrapolation_value: float = 0.0
    antialias: int = 0
    keep_aspect_ratio_policy: str = "stretch"
    axes: tuple[int, ...] | None = None
    shape_inputs: ClassVar[tuple[int, ...]] = (2, 3)

    def infer(
        self,
        x: Value,
        roi: Value | None = None,
        scales: Value | None = None,
        sizes: Value | None = None,
    ) -> tuple[Type, ...]:
        if self.mode not in ("nearest", "linear", "cubic"):
            raise ShapeError(f"interpolation mode {self.mode!r} is none of nearest, linear, cubic")
        scales = None if scales is None or scales.shape == (0,) else scales
        known = [value.known for value in (scales, sizes) if value is not None]
        shape = list(x.shape)
        if any(content is None for content in known):
            for axis in self._axes(x.rank):
                shape[axis] = UNKNOWN
        else:
            factors = None if scales is None else _floats(scales.known)
            targets = None if sizes is None else sizes.ints()
            for resized in self.resized_axes(x.shape, None, factors, targets):
                shape[resized.axis] = resized.output
        return (TensorType(x.dtype, tuple(shape)),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        roi: Array | None = None,
        scales: Array | None = None,
        sizes: Array | None = None,
    ) -> tuple[Array, ...]:
        targets = None if sizes is None else as_ints(sizes)
        resized = self.resized_axes(x.shape, _floats(roi), _floats(scales), targets)
        # Ties between neighbours, and whole numbers, come out as in ONNX Runtime only in float32.
        exact = self.mode == "nearest" or x.dtype.kind in "iu"
        precision = np.float32 if exact else np.float64
        y = x if self.mode == "nearest" else x.astype(_weight_dtype(x))
        outside = xp.zeros((1,) * x.ndim, dtype=np.bool_)
        for entry in resized:
            places = xp.arange(int(entry.output), dtype=precision)
            places = entry.original(xp, self.coordinate_transformation_mode, places)
            y = self._interpolated(xp, y, places, entry)
            if self._crops:
                beyond = (places < 0) | (places > int(entry.size) - 1)
                outside = outside | beyond.reshape(-1, *(1,) * (x.ndim - 1 - entry.axis))
        if self._crops:
            y = xp.where(outside, y.dtype.type(self.extrapolation_value), y)
        return (y.astype(x.dtype),)

    def resized_axes(
        self,
        shape: Shape,
        roi: Sequence[float] | None,
        scales: Sequence[float] | None,
        sizes: Sequence[Dim] | None,
    ) -> list[ResizedAxis]:
        """Every axis that changes. Raises ``ShapeError`` unless scales or sizes fit the axes."""
        axes = self._axes(len(shape))
        given = scales or sizes
        if given is None or len(given) != len(axes) or bool(scales) == bool(sizes):
            raise ShapeError(f"needs {len(axes)} scales or {len(axes)} sizes, has {scales, sizes}")
        dims = [shape[axis] for axis in axes]
        spans = [(0.0, 1.0)] * len(axes)
        if self._crops and roi:
            spans = list(zip(roi[: len(axes)], roi[len(axes) :], strict=True))
        if scales:
            outputs: Sequence[Dim] = list(map(_scaled, dims, scales))
            factors: Sequence[float | None] = scales
        else:
            assert sizes is not None
            outputs, factors = self._sizes(dims, sizes)
        return [
            ResizedAxis(axis, dim, output, factor, *span)
            for axis, dim, output, factor, span in zip(
                axes, dims, outputs, factors, spans, strict=True
            )
            if self._crops
            or self.coordinate_transformation_mode == "tf_half_pixel_for_nn"
            or factor != 1
            or dim != output
        ]

    @property
    def _crops(self) -> bool:
        return self.coordinate_transformation_mode == "tf_crop_and_resize"

    def _axes(self, rank: int) -> tuple[int, ...]:
        return normalize_axes(range(rank) if self.axes is None else self.axes, rank)

    def _sizes(
        self, dims: Sequence[Dim], sizes: Sequence[Dim]
    ) -> tuple[Sequence[Dim], Sequence[float | None]]:
        if self.keep_aspect_ratio_policy == "stretch":
            return sizes, [
                size / dim if isinstance(size, int) and isinstance(dim, int) else None
                for size, dim in zip(sizes, dims, strict=True)
            ]
        choose = min if self.keep_aspect_ratio_policy == "not_larger" else max
        scale = choose(int(size) / int(dim) for size, dim in zip(sizes, dims, strict=True))
        return [math.floor(scale * int(dim) + 0.5) for dim in dims], [scale] * len(dims)

    def _interpolated(self, xp: ArrayModule, x: Array, places: Array, entry: ResizedAxis) -> Array:
        """``x`` read at fractional places of one axis; what lies outside repeats the border."""
        last = int(entry.size) - 1
        assert entry.scale is not None
        if self.mode == "nearest":
            mode = self.nearest_mode
            if mode == "simple":
                mode = "ceil" if entry.scale < 1 else "floor"
            return xp.take(x, xp.clip(_nearest(xp, places, mode), 0, last), entry.axis)
        squeeze = min(entry.scale, 1.0) if self.antialias else 1.0
        reach = math.floor((1 if self.mode == "linear" else 2) / squeeze)
        whole = xp.floor(places)
        taps = xp.arange(-reach, reach + 2).reshape(-1, 1) + whole
        distance = (taps - places) * squeeze
        if self.mode == "linear":
            weights = linear_kernel(xp, distance)
        else:
            weights = cubic_kernel(xp, distance, self.cubic_coeff_a)
        if self.exclude_outside:
            weights = weights * ((taps >= 0) & (taps <= last))
        if self.exclude_outside or self.antialias:
            weights = weights / weights.sum(axis=0)
        return _weighted(xp, x, xp.clip(taps, 0, last).astype(np.int64), weights, entry.axis)


def linear_kernel(xp: ArrayModule, distance: Array) -> Array:
    """The triangle of width 2."""
    return xp.maximum(0, 1 - xp.absolute(distance))


def cubic_kernel(xp: ArrayModule, distance: Array, a: float) -> Array:
    """Keys' cubic convolution, IEEE ASSP 29 (1981), equation 4."""
    t = xp.absolute(distance)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return xp.where(t <= 1, near, xp.where(t < 2, far, 0))


def _nearest(xp: ArrayModule, places: Array, mode: str) -> Array:
    if mode == "round_prefer_floor":
        rounded = xp.ceil(places - 0.5)
    elif mode == "round_prefer_ceil":
        rounded = xp.floor(places + 0.5)
    elif mode in ("floor", "ceil"):
        rounded = xp.floor(places) if mode == "floor" else xp.ceil(places)
    else:
        raise ShapeError(f"nearest_mode {mode!r} does not exist")
    return rounded.astype(np.int64)


def _weighted(xp: ArrayModule, x: Array, taps: Array, weights: Array, axis: int) -> Array:
    """Sum over taps of ``x`` taken along ``axis``; taps and weights : (taps, output)."""
    along = (-1,) + (1,) * (x.ndim - 1 - axis)
    weights = weights.astype(x.real.dtype)
    result = xp.take(x, taps[0], axis) * weights[0].reshape(along)
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        result = result + xp.take(x, tap, axis) * weight.reshape(along)
    return result


def _weight_dtype(x: Array) -> np.dtype[np.generic]:
    return FLOAT64 if x.dtype.kind in "biu" else wide(x.dtype)


def _scaled(dim: Dim, scale: float) -> Dim:
    """floor(dim * scale), in float32 as ONNX's shape inference does it."""
    if isinstance(dim, int):
        return math.floor(np.float32(dim) * np.float32(scale))
    if scale == int(scale):
        return dim * int(scale)
    return dim // int(1 / scale) if 1 / scale == int(1 / scale) else UNKNOWN


def _floats(array: Array | None) -> tuple[float, ...] | None:
    """Content as Python numbers; None where absent or empty."""
    return None if array is None or array.size == 0 else tuple(array.reshape(-1).tolist())


OPERATORS: tuple[type[Op], ...] = (Resize,)
