"""Patterns as data: trees of operators, matched against a graph from a node upwards.

A pattern is written like the formula that it recognises::

    x = Var("x")
    swish = Product(1.0, x, Call(Sigmoid, (Product("alpha", x),)))

Products and sums match in any order and nesting, constants among them gathered into one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import isclose
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Rule, Subject
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.elementwise import Add, Div, Max, Min, Mul, Neg, Pow, Sub

_COMMUTATIVE = (Add, Mul, Max, Min)
_TOLERANCE = 1e-6
_HIGHEST_POWER = 4


@dataclass(frozen=True, slots=True)
class Var:
    """Any value; the same one wherever the name stands."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """Any constant."""

    name: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A constant of one element: of that value, or any, kept under that name."""

    value: float | str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator on patterns; absent trailing inputs match ``args`` that are shorter.

    Parameters
    ----------
    name : the output's name among the match's values.
    where : condition on the operator.
    """

    op_type: type[Op] | tuple[type[Op], ...]
    args: tuple[Pattern, ...]
    name: str | None = None
    where: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class _Terms:
    number: float | str
    terms: tuple[Pattern, ...]

    def __init__(self, number: float | str, *terms: Pattern) -> None:
        object.__setattr__(self, "number", number)
        object.__setattr__(self, "terms", terms)


class Product(_Terms):
    """A number, given or kept under a name, times factors in any order and nesting."""

    __slots__ = ()


class Sum(_Terms):
    """A number, given or kept under a name, plus terms in any order and nesting."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OneOf:
    """The first of several patterns that fits."""

    patterns: tuple[Pattern, ...]

    def __init__(self, *patterns: Pattern) -> None:
        object.__setattr__(self, "patterns", patterns)


Pattern: TypeAlias = Var | Constant | Scalar | Call | Product | Sum | OneOf


@dataclass(frozen=True, slots=True)
class Match:
    """What a pattern's names stand for, and the nodes that it covers, the root first.

    ``rank`` is the largest rank of the scalars: one above zero may add axes to the result.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    rank: int = 0

    def covering(self, *nodes: Node) -> Match:
        return replace(self, nodes=self.nodes + tuple(n for n in nodes if n not in self.nodes))


def recognise(
    root_types: tuple[type[Op], ...], pattern: Pattern, build: Callable[[Subject, Match], Op | None]
) -> Rule:
    """Rule that puts one operator on the value ``x`` in the place of a matched formula.

    Parameters
    ----------
    root_types : operators that the formula can end with.
    build : the operator, None where the match does not hold after all.
    """

    def rule(subject: Subject, node: Node) -> Patch | None:
        if not isinstance(node.op, root_types):
            return None
        for match in matches(subject, node, pattern):
            x, (y,) = match.values["x"], node.outputs
            if match.rank and not _same_type(subject, x, y):
                continue
            op = build(subject, match)
            if op is not None:
                return Patch(match.nodes, (Node(node.name, op, (x,), (y,)),))
        return None

    return rule


def matches(subject: Subject, node: Node, pattern: Pattern) -> Iterator[Match]:
    """Ways to match the node's first output, such that nothing else reads what lies inside."""
    if node.outputs[0] is None:
        return
    for match in _match(subject, node.outputs[0], pattern, Match()):
        if match.nodes and _closed(subject, match, node):
            inner = tuple(n for n in match.nodes if n.name != node.name)
            yield replace(match, nodes=(node, *inner))


def scalar_of(array: Array | None) -> float | None:
    """The number in a constant of one element, else None."""
    if array is None or array.size != 1 or array.dtype.kind not in "fiuV":
        return None
    return float(array.reshape(()))


def close(subject_dtype: np.dtype[Any], number: float, wanted: float) -> bool:
    """Whether a number is the wanted one within the rounding of its type."""
    tolerance = _TOLERANCE
    if subject_dtype.kind in "fV":
        tolerance = max(tolerance, float(ml_dtypes.finfo(subject_dtype).eps))
    return isclose(number, wanted, rel_tol=tolerance)


def _same_type(subject: Subject, x: str, y: str) -> bool:
    found = subject.tensor(x)
    return found is not None and found == subject.tensor(y)


def _closed(subject: Subject, match: Match, root: Node) -> bool:
    inside = {node.name for node in match.nodes}
    return all(
        name not in subject.outputs and all(r.name in inside for r in subject.consumers(name))
        for node in match.nodes
        if node.name != root.name
        for name in node.writes
    )


def _match(subject: Subject, value: str, pattern: Pattern, match: Match) -> Iterator[Match]:
    if isinstance(pattern, Var):
        yield from _bind(match, pattern.name, value)
    elif isinstance(pattern, Constant):
        if value in subject.constants:
            yield from _bind(match, pattern.name, value)
    elif isinstance(pattern, Scalar):
        array = subject.constant(value)
        number = scalar_of(array)
        if array is not None and number is not None:
            ranked = replace(match, rank=max(match.rank, array.ndim))
            yield from _with_number(ranked, pattern.value, number, array.dtype)
    elif isinstance(pattern, Call):
        yield from _match_call(subject, value, pattern, match)
    elif isinstance(pattern, OneOf):
        for choice in pattern.patterns:
            yield from _match(subject, value, choice, match)
    else:
        yield from _match_terms(subject, value, pattern, match)


def _bind(match: Match, name: str, value: str) -> Iterator[Match]:
    if match.values.get(name, value) == value:
        yield replace(match, values={**match.values, name: value})


def _with_number(
    match: Match, wanted: float | str, number: float, dtype: np.dtype[Any]
) -> Iterator[Match]:
    if isinstance(wanted, str):
        yield replace(match, scalars={**match.scalars, wanted: number})
    elif close(dtype, number, wanted):
        yield match


def _match_call(subject: Subject, value: str, pattern: Call, match: Match) -> Iterator[Match]:
    node = subject.producer(value, pattern.op_type)
    if node is None or node.outputs[0] != value or len(node.inputs) != len(pattern.args):
        return
    if pattern.where is not None and not pattern.where(node.op):
        return
    covered = match.covering(node)
    orders: Sequence[tuple[str | None, ...]] = [node.inputs]
    if isinstance(node.op, _COMMUTATIVE) and len(node.inputs) == 2:
        orders = [node.inputs, node.inputs[::-1]]
    for named in _bind(covered, pattern.name, value) if pattern.name else (covered,):
        for order in orders:
            yield from _match_all(subject, order, pattern.args, named)


def _match_all(
    subject: Subject, values: Sequence[str | None], patterns: Sequence[Pattern], match: Match
) -> Iterator[Match]:
    if not patterns:
        yield match
    elif values[0] is not None:
        for found in _match(subject, values[0], patterns[0], match):
            yield from _match_all(subject, values[1:], patterns[1:], found)


def _match_terms(
    subject: Subject, value: str, pattern: Product | Sum, match: Match
) -> Iterator[Match]:
    split = _factors if isinstance(pattern, Product) else _addends
    neutral = 1.0 if isinstance(pattern, Product) else 0.0
    for cut in _cuts(subject, value, split, neutral, len(pattern.terms), top=True):
        if len(cut.leaves) != len(pattern.terms):
            continue
        covered = replace(match.covering(*cut.nodes), rank=max(match.rank, cut.rank))
        for numbered in _with_number(covered, pattern.number, cut.number, cut.dtype):
            for order in dict.fromkeys(permutations(cut.leaves)):
                yield from _match_all(subject, order, pattern.terms, numbered)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A value as a number together with leaves: one way to cut the tree of its factors or terms."""

    number: float
    leaves: tuple[str, ...]
    nodes: tuple[Node, ...] = ()
    rank: int = 0
    dtype: np.dtype[Any] = np.dtype(np.float64)


_Split: TypeAlias = Callable[[Subject, Node], "tuple[_Cut, tuple[str, ...]] | None"]


def _cuts(
    subject: Subject, value: str, split: _Split, neutral: float, limit: int, top: bool = False
) -> Iterator[_Cut]:
    """Cuts of at most ``limit`` leaves, deepest first; values that others read too are leaves."""
    node = subject.producer(value, Op)
    parts = None
    if node is not None and (top or subject.private(value)):
        parts = split(subject, node)
    if parts is not None:
        start, operands = parts
        yield from _joined(subject, start, operands, split, neutral, limit)
    if limit:
        yield _Cut(neutral, (value,))


def _joined(
    subject: Subject,
    start: _Cut,
    operands: Sequence[str],
    split: _Split,
    neutral: float,
    limit: int,
) -> Iterator[_Cut]:
    if not operands:
        yield start
        return
    for cut in _cuts(subject, operands[0], split, neutral, limit - len(start.leaves)):
        number = start.number * cut.number if neutral else start.number + cut.number
        wide = start.dtype if start.nodes and not cut.nodes else cut.dtype
        joined = _Cut(
            number,
            start.leaves + cut.leaves,
            start.nodes + cut.nodes,
            max(start.rank, cut.rank),
            wide if start.dtype.itemsize > wide.itemsize else start.dtype,
        )
        yield from _joined(subject, joined, operands[1:], split, neutral, limit)


def _factors(subject: Subject, node: Node) -> tuple[_Cut, tuple[str, ...]] | None:
    """The number in a product and what it is multiplied with."""
    first, last = node.inputs[0], node.inputs[-1]
    if first is None or last is None:
        return None
    if isinstance(node.op, Neg):
        return _Cut(-1.0, (), (node,)), (first,)
    number = scalar_of(subject.constant(last))
    if isinstance(node.op, Mul):
        if number is not None:
            return _numbered(subject, node, number, last), (first,)
        number = scalar_of(subject.constant(first))
        if number is not None:
            return _numbered(subject, node, number, first), (last,)
        return _Cut(1.0, (), (node,)), (first, last)
    if isinstance(node.op, Div) and number:
        return _numbered(subject, node, 1 / number, last), (first,)
    if isinstance(node.op, Pow) and number in range(2, _HIGHEST_POWER + 1):
        power = _numbered(subject, node, 1.0, last)
        return replace(power, leaves=(first,) * int(number)), ()
    return None


def _addends(subject: Subject, node: Node) -> tuple[_Cut, tuple[str, ...]] | None:
    """The number in a sum and what it is added to."""
    if not isinstance(node.op, Add | Sub):
        return None
    first, last = node.inputs
    if first is None or last is None:
        return None
    number = scalar_of(subject.constant(last))
    if number is not None:
        return _numbered(subject, node, number if isinstance(node.op, Add) else -number, last), (
            first,
        )
    if isinstance(node.op, Sub):
        return None
    number = scalar_of(subject.constant(first))
    if number is not None:
        return _numbered(subject, node, number, first), (last,)
    return _Cut(0.0, (), (node,)), (first, last)


def _numbered(subject: Subject, node: Node, number: float, name: str) -> _Cut:
    array = subject.constants[name]
    dtype = array.dtype if array.dtype.kind in "fV" else np.dtype(np.float64)
    return _Cut(number, (), (node,), array.ndim, dtype)
