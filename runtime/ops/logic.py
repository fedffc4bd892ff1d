"""Comparisons, logic, bit operations and predicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.graph.dims import SymbolicDim, same
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, Array, ArrayModule, DType, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import Binary, Unary


class Comparison(Binary):
    """Two inputs of one dtype, broadcast; bool out."""

    __slots__ = ()

    def result_dtype(self, dtype: DType) -> DType:
        return BOOL


class Equal(Comparison):
    """Whether elements are equal, strings too (Equal-19)."""

    __slots__ = ()
    ufunc = "equal"

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        if a.dtype == object or b.dtype == object:
            return (np.asarray(np.frompyfunc(_equal, 2, 1)(a, b), dtype=np.bool_),)
        return (xp.equal(a, b),)


def _equal(a: object, b: object) -> bool:
    """Equality of strings, or of dimensions. Raises ``UndecidedError`` where symbols decide."""
    if isinstance(a, int | SymbolicDim) and isinstance(b, int | SymbolicDim):
        return same(a, b)
    return a == b


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


class And(Binary):
    __slots__ = ()
    ufunc = "logical_and"


class Or(Binary):
    __slots__ = ()
    ufunc = "logical_or"


class Xor(Binary):
    __slots__ = ()
    ufunc = "logical_xor"


class Not(Unary):
    __slots__ = ()
    ufunc = "logical_not"


class BitwiseAnd(Binary):
    __slots__ = ()
    ufunc = "bitwise_and"


class BitwiseOr(Binary):
    __slots__ = ()
    ufunc = "bitwise_or"


class BitwiseXor(Binary):
    __slots__ = ()
    ufunc = "bitwise_xor"


class BitwiseNot(Unary):
    __slots__ = ()
    ufunc = "invert"


@dataclass(frozen=True, slots=True)
class BitShift(Binary):
    """Shift by the second input, to the left or, keeping the sign, to the right (BitShift-28).

    Negative amounts and amounts beyond the type's width leave nothing but copies of the sign.
    """

    direction: str

    def reference(self, xp: ArrayModule, x: Array, y: Array) -> tuple[Array, ...]:
        bits = x.dtype.itemsize * 8
        inside = (y >= 0) & (y < bits)
        amount = xp.where(inside, y, 0).astype(x.dtype)
        if self.direction == "LEFT":
            return (xp.where(inside, xp.left_shift(x, amount), 0).astype(x.dtype),)
        beyond = xp.where(x < 0, -1, 0)
        return (xp.where(inside, xp.right_shift(x, amount), beyond).astype(x.dtype),)


class Predicate(Unary):
    """One input, bool out."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(BOOL, x.shape),)


class IsNaN(Predicate):
    __slots__ = ()
    ufunc = "isnan"


@dataclass(frozen=True, slots=True)
class IsInf(Predicate):
    """Whether elements are infinite, of the signs that count (IsInf-20)."""

    detect_negative: int = 1
    detect_positive: int = 1

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        negative = (x < 0) & bool(self.detect_negative)
        positive = (x > 0) & bool(self.detect_positive)
        return (xp.isinf(x) & (negative | positive),)


OPERATORS: tuple[type[Op], ...] = (
    *(Equal, Greater, GreaterOrEqual, Less, LessOrEqual, And, Or, Xor, Not),
    *(BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift, IsNaN, IsInf),
)
