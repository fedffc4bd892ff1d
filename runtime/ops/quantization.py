"""Linear quantisation: y = saturate(round(x / scale) + zero_point) and back."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    UINT8,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
    dtype_name,
)
from mnnpy.runtime.ops.casting import cast
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import wide, widen
from mnnpy.runtime.ops.shape_math import normalize_axis


@dataclass(frozen=True, slots=True)
class QuantizeLinear(Op):
    """Full precision to few bits, ONNX QuantizeLinear-28.

    The scale is one number, one per element of ``axis``, or of x's shape with blocks of
    ``block_size`` along ``axis``; the zero point has the scale's shape and y's type (default
    ``output_dtype``, uint8). The quotient is rounded to ``precision``, by default the scale's type.
    """

    axis: int = 1
    block_size: int = 0
    saturate: int = 1
    output_dtype: str | None = None
    precision: str | None = None

    def infer(self, x: Value, scale: Value, zero_point: Value | None = None) -> tuple[Type, ...]:
        require_granularity(x, scale, zero_point, self.axis, self.block_size)
        given = None if zero_point is None else zero_point.dtype
        dtype = DTYPES[self.output_dtype] if self.output_dtype else given or UINT8
        if given not in (None, dtype):
            raise ShapeError(f"a zero point of {dtype_name(given)} for {dtype_name(dtype)}")
        return (TensorType(dtype, x.shape),)

    def reference(
        self, xp: ArrayModule, x: Array, scale: Array, zero_point: Array | None = None
    ) -> tuple[Array, ...]:
        if self.output_dtype:
            dtype = DTYPES[self.output_dtype]
        else:
            dtype = UINT8 if zero_point is None else zero_point.dtype
        precision = DTYPES[self.precision] if self.precision else division_dtype(scale.dtype)
        divisor = spread(xp, scale.astype(precision), x.shape, self.axis, self.block_size)
        quotient = (x.astype(precision) / divisor).astype(FLOAT32)
        if zero_point is not None:
            zero_point = spread(xp, zero_point, x.shape, self.axis, self.block_size)
        return (quantized(xp, quotient, zero_point, dtype, bool(self.saturate)),)


@dataclass(frozen=True, slots=True)
class DequantizeLinear(Op):
    """(x - zero_point) * scale in ``output_dtype``, by default the scale's (DequantizeLinear-28).

    Granularity as in :class:`QuantizeLinear`.
    """

    axis: int = 1
    block_size: int = 0
    output_dtype: str | None = None

    def infer(self, x: Value, scale: Value, zero_point: Value | None = None) -> tuple[Type, ...]:
        require_granularity(x, scale, zero_point, self.axis, self.block_size)
        if zero_point is not None:
            require_same_dtype(x, zero_point)
        return (TensorType(self._dtype(scale.dtype), x.shape),)

    def reference(
        self, xp: ArrayModule, x: Array, scale: Array, zero_point: Array | None = None
    ) -> tuple[Array, ...]:
        dtype = self._dtype(scale.dtype)
        steps = exact(x)
        if zero_point is not None:
            steps = steps - exact(spread(xp, zero_point, x.shape, self.axis, self.block_size))
        factor = spread(xp, scale, x.shape, self.axis, self.block_size)
        return ((steps.astype(wide(dtype)) * factor.astype(wide(dtype))).astype(dtype),)

    def _dtype(self, scale: DType) -> DType:
        return DTYPES[self.output_dtype] if self.output_dtype else scale


class DynamicQuantizeLinear(Op):
    """float32 to uint8 over the data's own range, zero included (DynamicQuantizeLinear-11).

    x -> y, scale, zero point. Where all data is zero the scale is one.
    """

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(UINT8, x.shape), TensorType(FLOAT32, ()), TensorType(UINT8, ()))

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        bounded = xp.concatenate([x.reshape(-1), xp.zeros(1, dtype=x.dtype)])
        low, high = bounded.min(), bounded.max()
        scale = (high - low) / xp.float32(255)
        scale = xp.where(scale == 0, xp.float32(1), scale)
        zero_point = quantized(xp, -low / scale, None, UINT8)
        return quantized(xp, x / scale, zero_point, UINT8), scale, zero_point


def quantized(
    xp: ArrayModule, x: Array, zero_point: Array | None, dtype: DType, saturate: bool = True
) -> Array:
    """``x``, already divided by its scale, moved by the zero point and saturated to ``dtype``.

    Integers are rounded, halves to even; ``saturate`` concerns the float8 types alone.
    """
    if "int" not in dtype.name:
        moved = x if zero_point is None else x + zero_point.astype(x.dtype)
        return cast(xp, moved, dtype, saturate, "up")
    limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    x = xp.rint(x)
    if zero_point is not None:
        x = x + zero_point.astype(x.dtype)
    return xp.clip(x, int(limits.min), int(limits.max)).astype(dtype)


def exact(x: Array) -> Array:
    """Quantised numbers in a type whose differences and products are exact."""
    return x.astype(np.int32) if "int" in x.dtype.name else widen(x)


def division_dtype(scale: DType) -> DType:
    """Type of the quotient for a scale's type: float32 where that only holds powers of two."""
    return scale if scale.itemsize > 1 and scale.kind not in "iu" else FLOAT32


def spread(xp: ArrayModule, x: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point so that it broadcasts against the data's shape."""
    if x.size == 1 and not block_size:
        return x.reshape(())
    if x.ndim == 1 and not block_size:
        axis = _channel_axis(axis, len(shape))
        return x.reshape(*(-1 if i == axis else 1 for i in range(len(shape))))
    axis = normalize_axis(axis, len(shape))
    repeats = block_size or -(-shape[axis] // x.shape[axis])
    kept = tuple(slice(size) for size in shape)
    return xp.repeat(x, repeats, axis=axis)[kept]


def require_granularity(
    x: Value, scale: Value, zero_point: Value | None, axis: int, block_size: int
) -> None:
    """Raise ``ShapeError`` unless the scale is per tensor, per axis or per block of x."""
    if zero_point is not None and _differ(zero_point.shape, scale.shape):
        raise ShapeError(
            f"a scale of shape {scale.shape} with a zero point of shape {zero_point.shape}"
        )
    if not block_size and scale.shape in ((), (1,)):
        return
    if scale.rank == 1 and not block_size:
        wanted: Shape = (x.shape[_channel_axis(axis, x.rank)],)
    else:
        axis = normalize_axis(axis, x.rank)
        blocks = -(-x.shape[axis] // block_size) if block_size else scale.shape[axis]
        wanted = (*x.shape[:axis], blocks, *x.shape[axis + 1 :])
    if _differ(scale.shape, wanted):
        raise ShapeError(f"a scale of shape {scale.shape} where {wanted} is needed")


def _channel_axis(axis: int, rank: int) -> int:
    # The default axis 1 does not exist in a vector, whose only axis is meant.
    return 0 if rank == 1 else normalize_axis(axis, rank)


def _differ(a: Shape, b: Shape) -> bool:
    """Whether shapes are known to differ; one number may be a scalar or a vector."""
    if {len(a), len(b)} == {0, 1}:
        return differ((*a, *b)[0], 1)
    return len(a) != len(b) or any(map(differ, a, b))


OPERATORS: tuple[type[Op], ...] = (QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear)
