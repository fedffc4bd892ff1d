"""Operators that make tensors from little: ranges, constants, masks, random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    STRING,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import wide, widen
from mnnpy.runtime.ops.shape_math import as_ints


class Range(Op):
    """start, start + delta, ... before limit, ONNX Range-27; the inputs are scalars.

    float16 and bfloat16 ranges are computed in float32 and rounded once.
    """

    __slots__ = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def infer(self, start: Value, limit: Value, delta: Value) -> tuple[Type, ...]:
        require_same_dtype(start, limit, delta)
        values = (start, limit, delta)
        if any(value.known is None for value in values):
            return (TensorType(start.dtype, (UNKNOWN,)),)
        if all(value.constant for value in values):
            count: Dim = _range_length(*(np.asarray(value.known).reshape(()) for value in values))
        else:
            (first,), (last,), (step,) = (value.ints() for value in values)
            count = (last - first + int(step) - (1 if int(step) > 0 else -1)) // step
        return (TensorType(start.dtype, (count,)),)

    def reference(
        self, xp: ArrayModule, start: Array, limit: Array, delta: Array
    ) -> tuple[Array, ...]:
        start, limit, delta = (value.reshape(()) for value in (start, limit, delta))
        dtype = start.dtype
        steps = xp.arange(_range_length(start, limit, delta)).astype(wide(dtype))
        return ((widen(start) + steps * widen(delta)).astype(dtype),)


def _range_length(start: Array, limit: Array, delta: Array) -> int:
    first, last, step = (value.item() for value in (start, limit, delta))
    if step == 0:
        raise ShapeError("Range cannot have delta 0")
    if isinstance(first, int) and isinstance(last, int) and isinstance(step, int):
        return max(-((first - last) // step), 0)
    return max(math.ceil((float(last) - float(first)) / float(step)), 0)


@dataclass(frozen=True, slots=True)
class ConstantOfShape(Op):
    """One value everywhere, ONNX ConstantOfShape-25; complex values are (real, imaginary)."""

    dtype: str = "float32"
    value: int | float | bool | str | tuple[float, ...] = 0
    shape_inputs: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, shape: Value) -> tuple[Type, ...]:
        dtype = DTYPES[self.dtype]
        if shape.known is None:
            return (TensorType(dtype, (UNKNOWN,) * int(shape.shape[0])),)
        dims = shape.ints()
        if any(isinstance(dim, int) and dim < 0 for dim in dims):
            raise ShapeError(f"shape {dims} has a negative dimension")
        return (TensorType(dtype, dims),)

    def reference(self, xp: ArrayModule, shape: Array) -> tuple[Array, ...]:
        value = complex(*self.value) if isinstance(self.value, tuple) else self.value
        dtype = DTYPES[self.dtype]
        module = np if dtype == STRING else xp
        return (module.full(as_ints(shape), module.asarray(value, dtype=dtype)),)


@dataclass(frozen=True, slots=True)
class EyeLike(Op):
    """Ones on diagonal ``k`` of a matrix shaped like the input, ONNX EyeLike-22."""

    dtype: str | None = None
    k: int = 0

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank != 2:
            raise ShapeError(f"EyeLike takes a matrix, not the shape {x.shape}")
        return (TensorType(_dtype_or(self.dtype, x.dtype), x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.eye(*x.shape, k=self.k).astype(_dtype_or(self.dtype, x.dtype)),)


class Random(Op):
    """Base of operators that draw numbers; ``seed`` None draws anew in every process."""

    __slots__ = ()
    deterministic: ClassVar[bool] = False
    dtype: str | None
    seed: float | None

    def generator(self) -> np.random.Generator:
        """A generator of this call's own. The whole bit pattern of the seed counts."""
        if self.seed is None:
            return np.random.default_rng()
        return np.random.default_rng(int(np.float64(self.seed).view(np.uint64)))

    def output_dtype(self, fallback: DType) -> DType:
        return _dtype_or(self.dtype, fallback)


@dataclass(frozen=True, slots=True)
class RandomNormal(Random):
    """Normal numbers of a fixed shape, ONNX RandomNormal-22."""

    shape: tuple[int, ...]
    dtype: str | None = None
    mean: float = 0.0
    scale: float = 1.0
    seed: float | None = None

    def infer(self) -> tuple[Type, ...]:
        return (TensorType(self.output_dtype(DTYPES["float32"]), self.shape),)

    def reference(self, xp: ArrayModule) -> tuple[Array, ...]:
        drawn = self.generator().normal(self.mean, self.scale, self.shape)
        return (xp.asarray(drawn.astype(self.output_dtype(DTYPES["float32"]))),)


@dataclass(frozen=True, slots=True)
class RandomUniform(Random):
    """Uniform numbers of a fixed shape, ONNX RandomUniform-22."""

    shape: tuple[int, ...]
    dtype: str | None = None
    low: float = 0.0
    high: float = 1.0
    seed: float | None = None

    def infer(self) -> tuple[Type, ...]:
        return (TensorType(self.output_dtype(DTYPES["float32"]), self.shape),)

    def reference(self, xp: ArrayModule) -> tuple[Array, ...]:
        drawn = self.generator().uniform(self.low, self.high, self.shape)
        return (xp.asarray(drawn.astype(self.output_dtype(DTYPES["float32"]))),)


@dataclass(frozen=True, slots=True)
class RandomNormalLike(Random):
    """Normal numbers in the input's shape, ONNX RandomNormalLike-22."""

    dtype: str | None = None
    mean: float = 0.0
    scale: float = 1.0
    seed: float | None = None

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(self.output_dtype(x.dtype), x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        drawn = self.generator().normal(self.mean, self.scale, x.shape)
        return (xp.asarray(drawn.astype(self.output_dtype(x.dtype))),)


@dataclass(frozen=True, slots=True)
class RandomUniformLike(Random):
    """Uniform numbers in the input's shape, ONNX RandomUniformLike-22."""

    dtype: str | None = None
    low: float = 0.0
    high: float = 1.0
    seed: float | None = None

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(self.output_dtype(x.dtype), x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        drawn = self.generator().uniform(self.low, self.high, x.shape)
        return (xp.asarray(drawn.astype(self.output_dtype(x.dtype))),)


@dataclass(frozen=True, slots=True)
class Bernoulli(Random):
    """1 with the probability that the input gives, else 0, ONNX Bernoulli-22."""

    dtype: str | None = None
    seed: float | None = None

    def infer(self, p: Value) -> tuple[Type, ...]:
        return (TensorType(self.output_dtype(p.dtype), p.shape),)

    def reference(self, xp: ArrayModule, p: Array) -> tuple[Array, ...]:
        drawn = xp.asarray(self.generator().uniform(size=p.shape))
        return ((drawn < p.astype(np.float64)).astype(self.output_dtype(p.dtype)),)


@dataclass(frozen=True, slots=True)
class Multinomial(Random):
    """Classes drawn by unnormalised log-probabilities, ONNX Multinomial-22.

    x : (n, classes) -> (n, sample_size), drawn with the Gumbel-max method.
    """

    dtype: str | None = None
    sample_size: int = 1
    seed: float | None = None

    def infer(self, x: Value) -> tuple[Type, ...]:
        shape = (x.shape[0], self.sample_size)
        return (TensorType(self.output_dtype(DTYPES["int32"]), shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        n, classes = x.shape
        noise = xp.asarray(self.generator().gumbel(size=(n, self.sample_size, classes)))
        drawn = (x.reshape(n, 1, classes).astype(np.float64) + noise).argmax(axis=-1)
        return (drawn.astype(self.output_dtype(DTYPES["int32"])),)


def _dtype_or(name: str | None, fallback: DType) -> DType:
    return fallback if name is None else DTYPES[name]


OPERATORS: tuple[type[Op], ...] = (
    *(Range, ConstantOfShape, EyeLike, RandomNormal, RandomUniform),
    *(RandomNormalLike, RandomUniformLike, Bernoulli, Multinomial),
)
