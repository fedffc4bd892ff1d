"""Dimensions that may be symbolic.

A dimension is an ``int`` or a :class:`SymbolicDim`, a linear form over named symbols such as
``2*height + 1``. Operators write their shape arithmetic once, with ``+ - * //``, and it works on
both. What cannot be decided without numbers (``height < 3``) raises :class:`UndecidedError`, which
type inference turns into an unknown type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias


class UndecidedError(Exception):
    """A symbolic dimension was used where only a number decides. Internal: never reaches users."""


@dataclass(frozen=True, slots=True)
class SymbolicDim:
    """``constant + sum(factor * symbol)``; non-linear parts are symbols named by their text."""

    terms: tuple[tuple[str, int], ...]
    constant: int = 0

    @staticmethod
    def named(name: str) -> SymbolicDim:
        return SymbolicDim(((name, 1),))

    def __add__(self, other: Dim) -> Dim:
        factors = dict(self.terms)
        constant = self.constant
        if isinstance(other, SymbolicDim):
            for symbol, factor in other.terms:
                factors[symbol] = factors.get(symbol, 0) + factor
            constant += other.constant
        else:
            constant += int(other)
        return _simplify(factors, constant)

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, SymbolicDim):
            first, second = sorted((f"({self})", f"({other})"))
            return SymbolicDim.named(f"{first}*{second}")
        scale = int(other)
        return _simplify({s: f * scale for s, f in self.terms}, self.constant * scale)

    def __floordiv__(self, other: Dim) -> Dim:
        if isinstance(other, SymbolicDim):
            ratio = self.terms[0][1] // other.terms[0][1]
            if self == other * ratio:
                return ratio
        else:
            divisor = int(other)
            if divisor and not any(part % divisor for part in (*self._factors(), self.constant)):
                return _simplify({s: f // divisor for s, f in self.terms}, self.constant // divisor)
        return SymbolicDim.named(f"floor(({self})/({other}))")

    def __rfloordiv__(self, other: int) -> Dim:
        return 0 if other == 0 else SymbolicDim.named(f"floor({other}/({self}))")

    def __mod__(self, other: Dim) -> Dim:
        return self - (self // other) * other

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__

    def _factors(self) -> Iterable[int]:
        return (factor for _, factor in self.terms)

    def _undecided(self, *_: object) -> NoReturn:
        raise UndecidedError(str(self))

    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = _undecided
    __int__ = __index__ = __float__ = _undecided

    def __str__(self) -> str:
        parts = [symbol if factor == 1 else f"{factor}*{symbol}" for symbol, factor in self.terms]
        if self.constant:
            parts.append(str(self.constant))
        return " + ".join(parts).replace("+ -", "- ")

    __repr__ = __str__


Dim: TypeAlias = int | SymbolicDim
Shape: TypeAlias = tuple[Dim, ...]

UNKNOWN = SymbolicDim.named("?")
"""Returned by an operator whose output size only the data decides; inference gives it a name."""


def is_static(shape: Iterable[Dim]) -> bool:
    """Whether every dimension is a number."""
    return all(isinstance(dim, int) for dim in shape)


def differ(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are known to be different."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def same(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are equal. Raises ``UndecidedError`` where the symbols' values decide.

    Symbols stand for sizes, which are never negative.
    """
    difference = a - b
    if isinstance(difference, SymbolicDim):
        parts = (difference.constant, *(factor for _, factor in difference.terms))
        if difference.constant and (min(parts) >= 0 or max(parts) <= 0):
            return False
        raise UndecidedError(f"{a} == {b}")
    return difference == 0


def _simplify(factors: dict[str, int], constant: int) -> Dim:
    terms = tuple(sorted((symbol, factor) for symbol, factor in factors.items() if factor))
    return SymbolicDim(terms, constant) if terms else constant
