"""Elementwise arithmetic, comparison and logic, with NumPy's broadcasting."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    BOOL,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
    dtype_name,
)
from mnnpy.runtime.ops.shape_math import broadcast_shapes


class Elementwise(Op):
    """Base of operators whose output element depends on the input elements at its own place."""

    __slots__ = ()

    ufunc: ClassVar[str | None] = None
    """Name of the array module's function that computes the operator alone, where there is one."""


class Unary(Elementwise):
    """One input, same type out."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        if self.ufunc is None:
            raise NotImplementedError(self.kind)
        return (getattr(xp, self.ufunc)(x),)


class Predicate(Unary):
    """One input, bool out."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(BOOL, x.shape),)


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


class Comparison(Binary):
    """Two inputs of one dtype, broadcast; bool out."""

    __slots__ = ()

    def result_dtype(self, dtype: DType) -> DType:
        return BOOL


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
        if a.dtype.kind not in "iu" and a.dtype != object:
            return (xp.true_divide(a, b),)
        quotient = a // b
        if a.dtype.kind == "i":
            quotient = quotient + ((quotient * b != a) & ((a < 0) != (b < 0)))
        return (quotient.astype(a.dtype),)


class Equal(Comparison):
    __slots__ = ()
    ufunc = "equal"

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        return ((a == b).astype(np.bool_),)


class Greater(Comparison):
    __slots__ = ()
    ufunc = "greater"


class GreaterOrEqual(Comparison):
    __slots__ = ()
    ufunc = "greater_equal"


class Less(Comparison):
    __slots__ = ()
    ufunc = "less"


class LessOrEqual(Comparison):
    __slots__ = ()
    ufunc = "less_equal"


OPERATORS: tuple[type[Op], ...] = (
    *(Identity, Abs, Neg, Exp, Log, Sqrt, Reciprocal, Floor, Ceil, Round, Sign),
    *(Add, Sub, Mul, Div, Equal, Greater, GreaterOrEqual, Less, LessOrEqual),
)
