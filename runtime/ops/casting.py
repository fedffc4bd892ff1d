"""Conversions between element types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    STRING,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
    dtype_name,
)

FLOAT8 = {DTYPES[f"float8_{name}"] for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")}
"""Types that clamp to their largest number where Cast says ``saturate``."""

FLOAT8_E8M0 = DTYPES["float8_e8m0fnu"]


@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The values as another element type, ONNX Cast-28.

    ``saturate`` clamps to the range of the float8 types; ``round_mode`` (up, down, nearest)
    concerns float8_e8m0fnu only.
    """

    to: str
    saturate: int = 1
    round_mode: str = "up"

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(DTYPES[self.to], x.shape),)

    def content(self, inputs: Sequence[Value | None]) -> tuple[Array, ...] | None:
        (x,) = inputs
        return None if x is None else _symbolic(x, DTYPES[self.to])

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (cast(xp, x, DTYPES[self.to], bool(self.saturate), self.round_mode),)


@dataclass(frozen=True, slots=True)
class CastLike(Op):
    """The values of the first input as the second one's element type, ONNX CastLike-25."""

    saturate: int = 1
    round_mode: str = "up"

    def infer(self, x: Value, like: Value) -> tuple[Type, ...]:
        return (TensorType(like.dtype, x.shape),)

    def content(self, inputs: Sequence[Value | None]) -> tuple[Array, ...] | None:
        x, like = inputs
        return None if x is None or like is None else _symbolic(x, like.dtype)

    def reference(self, xp: ArrayModule, x: Array, like: Array) -> tuple[Array, ...]:
        return (cast(xp, x, like.dtype, bool(self.saturate), self.round_mode),)


@dataclass(frozen=True, slots=True)
class BitCast(Op):
    """The same bits as another element type of the same width, ONNX BitCast-26."""

    to: str

    def infer(self, x: Value) -> tuple[Type, ...]:
        dtype = DTYPES[self.to]
        if STRING in (dtype, x.dtype) or bits(dtype) != bits(x.dtype):
            raise ShapeError(f"cannot see the bits of {dtype_name(x.dtype)} as {self.to}")
        return (TensorType(dtype, x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (x.view(DTYPES[self.to]),)


def bits(dtype: DType) -> int:
    """Width of an element: less than a byte for the packed types."""
    packed = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4}
    return packed.get(dtype.name, dtype.itemsize * 8)


def cast(xp: ArrayModule, x: Array, dtype: DType, saturate: bool, round_mode: str) -> Array:
    """ONNX's conversion of any element type to any other."""
    if x.dtype == dtype:
        return x
    if x.dtype == STRING:
        return xp.asarray(_parsed(x, dtype))
    if dtype == STRING:
        return _printed(x)
    if dtype == FLOAT8_E8M0:
        return _power_of_two(xp, x, saturate, round_mode)
    if dtype in FLOAT8:
        if x.dtype.isbuiltin != 1 or x.dtype.kind != "f":
            x = x.astype(FLOAT32)
        if saturate:
            limits: Any = ml_dtypes.finfo
            largest = float(limits(dtype).max)
            x = xp.clip(x, -largest, largest)
    elif x.dtype.isbuiltin != 1 and dtype.isbuiltin != 1:
        # ml_dtypes has no conversion between some of its own types; float32 holds all of them.
        x = x.astype(FLOAT32)
    return x.astype(dtype)


def _symbolic(x: Value, dtype: DType) -> tuple[Array, ...] | None:
    """Content that holds symbolic dimensions stays what it is under another integer type."""
    if x.known is None or x.constant or dtype.kind not in "iu":
        return None
    return (x.known,)


def _parsed(x: Array, dtype: DType) -> Array:
    parse = _integer if dtype.kind in "iu" else float
    numbers = np.array([parse(text) for text in x.reshape(-1)])
    if dtype.isbuiltin != 1:
        numbers = numbers.astype(FLOAT32)
    return numbers.astype(dtype).reshape(x.shape)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _printed(x: Array) -> Array:
    """Plain notation, shortest digits that read back as the same number."""
    values = x.get() if hasattr(x, "get") else x
    if values.dtype.isbuiltin != 1 and "float" in values.dtype.name:
        values = values.astype(FLOAT32)
    texts = np.empty(values.size, dtype=STRING)
    real = values.dtype.kind == "f"
    texts[:] = [
        np.format_float_positional(value, trim="0") if real else str(value)
        for value in values.reshape(-1)
    ]
    return texts.reshape(values.shape)


def _power_of_two(xp: ArrayModule, x: Array, saturate: bool, round_mode: str) -> Array:
    """float8_e8m0fnu: 2**-127 .. 2**127 and NaN, no sign and no zero."""
    if round_mode not in ("up", "down", "nearest"):
        raise ShapeError(f"round_mode {round_mode!r} is none of up, down, nearest")
    x = xp.absolute(x.astype(np.float64))
    finite = xp.isfinite(x)
    # x = fraction * 2**exponent with 0.5 <= fraction < 1.
    fraction, exponent = xp.frexp(xp.where(finite, x, 1.0))
    lowest = {"up": 0.5, "nearest": 0.75, "down": 1.0}[round_mode]
    ups = fraction > lowest if round_mode == "up" else fraction >= lowest
    exponent = xp.where(fraction == 0, -(2**14), exponent - 1 + ups)
    exponent = xp.where(xp.isinf(x), 2**14, exponent)
    lost = xp.isnan(x)
    if not saturate:
        lost |= (exponent < -127) | (exponent > 127)
    power = xp.ldexp(xp.float32(1), xp.clip(exponent, -127, 127))
    return xp.where(lost, xp.float32(np.nan), power).astype(FLOAT8_E8M0)


OPERATORS: tuple[type[Op], ...] = (Cast, CastLike, BitCast)
