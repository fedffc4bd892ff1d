"""Elementwise arithmetic with NumPy's broadcasting, and the bases of elementwise operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
    dtype_name,
)
from mnnpy.runtime.ops.numeric import erf, widen
from mnnpy.runtime.ops.shape_math import broadcast_shapes, normalize_axis


class Elementwise(Op):
    """Base of operators whose output element depends on the input elements at its own place."""

    __slots__ = ()

    ufunc: ClassVar[str | None] = None
    """Name of the array module's function that computes the operator alone, where there is one."""


class SameType(Op):
    """One input, same type out."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (x.tensor,)


class Unary(SameType, Elementwise):
    """One input, same type out, element by element."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        if self.ufunc is None:
            raise NotImplementedError(self.kind)
        return (getattr(xp, self.ufunc)(x),)


class Binary(Elementwise):
    """Two inputs of one dtype, broadcast; same dtype out."""

    __slots__ = ()

    def infer(self, a: Value, b: Value) -> tuple[Type, ...]:
        require_same_dtype(a, b)
        return (TensorType(self.result_dtype(a.dtype), broadcast_shapes(a.shape, b.shape)),)

    def result_dtype(self, dtype: DType) -> DType:
        return dtype

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        if self.ufunc is None:
            raise NotImplementedError(self.kind)
        return (getattr(xp, self.ufunc)(a, b),)


def require_same_dtype(*values: Value) -> None:
    """Raise ``ShapeError`` unless all values have one element type."""
    dtypes = {value.dtype for value in values}
    if len(dtypes) > 1:
        names = ", ".join(sorted(map(dtype_name, dtypes)))
        raise ShapeError(f"inputs must have one element type, these have {names}")


class Variadic(Elementwise):
    """One or more inputs of one dtype, broadcast; same dtype out."""

    __slots__ = ()

    def infer(self, *xs: Value) -> tuple[Type, ...]:
        require_same_dtype(*xs)
        return (TensorType(xs[0].dtype, broadcast_shapes(*(x.shape for x in xs))),)

    def reference(self, xp: ArrayModule, *xs: Array) -> tuple[Array, ...]:
        if self.ufunc is None:
            raise NotImplementedError(self.kind)
        result = xs[0]
        for x in xs[1:]:
            result = getattr(xp, self.ufunc)(result, x)
        return (result,)


class Identity(Unary):
    """Identity: the input itself (a tensor, sequence or optional)."""

    __slots__ = ()
    view: ClassVar[bool] = True

    def infer(self, x: Value) -> tuple[Type, ...]:
        assert x.type is not None
        return (x.type,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (x,)


class Abs(Unary):
    __slots__ = ()
    ufunc = "absolute"


class Neg(Unary):
    __slots__ = ()
    ufunc = "negative"


class Exp(Unary):
    __slots__ = ()
    ufunc = "exp"


class Log(Unary):
    __slots__ = ()
    ufunc = "log"


class Sqrt(Unary):
    __slots__ = ()
    ufunc = "sqrt"


class Reciprocal(Unary):
    """1 / x."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.asarray(1, dtype=x.dtype) / x,)


class Floor(Unary):
    __slots__ = ()
    ufunc = "floor"


class Ceil(Unary):
    __slots__ = ()
    ufunc = "ceil"


class Round(Unary):
    """Nearest integer, halves to even."""

    __slots__ = ()
    ufunc = "rint"


class Sign(Unary):
    __slots__ = ()
    ufunc = "sign"


class Erf(Unary):
    """The error function."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (erf(xp, x).astype(x.dtype),)


class Sin(Unary):
    __slots__ = ()
    ufunc = "sin"


class Cos(Unary):
    __slots__ = ()
    ufunc = "cos"


class Tan(Unary):
    __slots__ = ()
    ufunc = "tan"


class Asin(Unary):
    __slots__ = ()
    ufunc = "arcsin"


class Acos(Unary):
    __slots__ = ()
    ufunc = "arccos"


class Atan(Unary):
    __slots__ = ()
    ufunc = "arctan"


class Sinh(Unary):
    __slots__ = ()
    ufunc = "sinh"


class Cosh(Unary):
    __slots__ = ()
    ufunc = "cosh"


class Asinh(Unary):
    __slots__ = ()
    ufunc = "arcsinh"


class Acosh(Unary):
    __slots__ = ()
    ufunc = "arccosh"


class Atanh(Unary):
    __slots__ = ()
    ufunc = "arctanh"


class Add(Binary):
    __slots__ = ()
    ufunc = "add"


class Sub(Binary):
    __slots__ = ()
    ufunc = "subtract"


class Mul(Binary):
    __slots__ = ()
    ufunc = "multiply"


class Div(Binary):
    """a / b; integers are truncated towards zero, as ONNX asks."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        if object in (a.dtype, b.dtype):  # Symbolic sizes, which are never negative.
            return (xp.asarray(a // b, dtype=object),)
        if a.dtype.kind not in "iu":
            return (xp.true_divide(a, b),)
        quotient = a // b
        if a.dtype.kind == "i":
            quotient = quotient + ((quotient * b != a) & ((a < 0) != (b < 0)))
        return (quotient.astype(a.dtype),)


class Pow(Elementwise):
    """Powers of the first input, in its type, whatever the exponents' type (Pow-15)."""

    __slots__ = ()

    def infer(self, x: Value, exponent: Value) -> tuple[Type, ...]:
        return (TensorType(x.dtype, broadcast_shapes(x.shape, exponent.shape)),)

    def reference(self, xp: ArrayModule, x: Array, exponent: Array) -> tuple[Array, ...]:
        integers = [array.dtype.kind in "iu" for array in (x, exponent)]
        if all(integers):
            return (_integer_power(xp, x, exponent),)
        short = not any(integers) and max(x.dtype.itemsize, exponent.dtype.itemsize) < 8
        dtype = np.float32 if short else np.float64
        return (xp.power(x.astype(dtype), exponent.astype(dtype)).astype(x.dtype),)


def _integer_power(xp: ArrayModule, x: Array, exponent: Array) -> Array:
    power = xp.power(x, xp.maximum(exponent, 0).astype(x.dtype))
    if exponent.dtype.kind == "i" and bool((exponent < 0).any()):
        inverse = xp.power(x.astype(np.float64), exponent)
        power = xp.where(exponent < 0, inverse, power)
    return power.astype(x.dtype)


@dataclass(frozen=True, slots=True)
class Mod(Binary):
    """Remainder with the divisor's sign, or with ``fmod`` the dividend's (Mod-28)."""

    fmod: int = 0

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        remainder = xp.fmod(a, b) if self.fmod else xp.remainder(a, b)
        return (remainder.astype(a.dtype, copy=False),)


class Max(Variadic):
    """Largest of the inputs; NaN where one is NaN."""

    __slots__ = ()
    ufunc = "maximum"


class Min(Variadic):
    """Smallest of the inputs; NaN where one is NaN."""

    __slots__ = ()
    ufunc = "minimum"


class Sum(Variadic):
    __slots__ = ()
    ufunc = "add"


class Mean(Variadic):
    """Sum of the inputs divided by their number."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, *xs: Array) -> tuple[Array, ...]:
        total = sum(map(widen, xs[1:]), start=widen(xs[0]))
        return ((total / len(xs)).astype(xs[0].dtype),)


class Where(Elementwise):
    """The second input where the first is true, else the third (Where-16)."""

    __slots__ = ()

    def infer(self, condition: Value, x: Value, y: Value) -> tuple[Type, ...]:
        require_same_dtype(x, y)
        return (TensorType(x.dtype, broadcast_shapes(condition.shape, x.shape, y.shape)),)

    def reference(self, xp: ArrayModule, condition: Array, x: Array, y: Array) -> tuple[Array, ...]:
        return (xp.where(condition, x, y),)


@dataclass(frozen=True, slots=True)
class AlignAxes(Op):
    """View of ``x`` that broadcasts to ``like`` with its first axis at ``axis``.

    How ONNX broadcast before opset 7: trailing axes of size one are added.
    """

    axis: int
    domain: ClassVar[str] = "mnnpy"
    view: ClassVar[bool] = True

    def infer(self, x: Value, like: Value) -> tuple[Type, ...]:
        return (TensorType(x.dtype, self._shape(x.shape, like.rank)),)

    def reference(self, xp: ArrayModule, x: Array, like: Array) -> tuple[Array, ...]:
        return (x.reshape(self._shape(x.shape, like.ndim)),)

    def _shape(self, shape: Shape, rank: int) -> Shape:
        return shape + (1,) * (rank - normalize_axis(self.axis, rank) - len(shape))


OPERATORS: tuple[type[Op], ...] = (
    *(Identity, Abs, Neg, Exp, Log, Sqrt, Reciprocal, Floor, Ceil, Round, Sign, Erf),
    *(Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh),
    *(Add, Sub, Mul, Div, Pow, Mod, Max, Min, Sum, Mean, Where, AlignAxes),
)
