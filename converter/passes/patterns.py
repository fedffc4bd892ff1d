"""Patterns as data: formulas that are looked for in a graph, from a node upwards.

A pattern is written like the formula that it recognises::

    x = Var("x")
    SWISH = Product(1.0, x, Call(Sigmoid, Product("alpha", x)))

Products and sums match in any order and nesting; the constants among them make one number.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import isclose
from typing import Any, TypeAlias

from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Rule, Subject
from mnnpy.runtime.graph.types import BFLOAT16, FLOAT16, Array
from mnnpy.runtime.ops.elementwise import Add, Div, Max, Min, Mul, Neg, Pow, Sub

_COMMUTATIVE = (Add, Mul, Max, Min)
_TOLERANCE = 1e-6
_ROUNDING = {FLOAT16: 2.0**-10, BFLOAT16: 2.0**-7}
"""How far constants of narrow types may be from the number that they stand for."""

_HIGHEST_POWER = 4


@dataclass(frozen=True, slots=True)
class Var:
    """Any value; the same one wherever the name stands."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """Any constant; the same one wherever the name stands."""

    name: str


@dataclass(frozen=True, slots=True)
class Scalar:
    """A constant of one element: a given number, or any, kept under a name."""

    number: float | str


class Call:
    """An operator with exactly these inputs, of which two may be swapped where that is the same.

    Parameters
    ----------
    name : what to call the output, for the match and for Vars of that name.
    where : condition on the operator.
    """

    __slots__ = ("args", "name", "op_type", "where")

    def __init__(
        self,
        op_type: type[Op],
        *args: Pattern,
        name: str | None = None,
        where: Callable[[Any], bool] | None = None,
    ) -> None:
        self.op_type, self.args, self.name, self.where = op_type, args, name, where


class Product:
    """A number, given or kept under a name, times factors in any order and nesting."""

    __slots__ = ("number", "terms")

    def __init__(self, number: float | str, *terms: Pattern) -> None:
        self.number, self.terms = number, terms


class Sum:
    """A number, given or kept under a name, plus terms in any order and nesting."""

    __slots__ = ("number", "terms")

    def __init__(self, number: float | str, *terms: Pattern) -> None:
        self.number, self.terms = number, terms


class OneOf:
    """Any of several patterns, the first that fits."""

    __slots__ = ("patterns",)

    def __init__(self, *patterns: Pattern) -> None:
        self.patterns = patterns


Pattern: TypeAlias = Var | Constant | Scalar | Call | Product | Sum | OneOf


@dataclass(frozen=True, slots=True)
class Match:
    """What a pattern's names stand for, and the nodes that it covers, the root first.

    ``rank`` is the largest rank of the numbers: one above zero may add axes to the result.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    rank: int = 0

    def covering(self, *nodes: Node) -> Match:
        return replace(self, nodes=self.nodes + tuple(n for n in nodes if n not in self.nodes))


def recognise(
    roots: type[Op] | tuple[type[Op], ...],
    pattern: Pattern,
    build: Callable[[Subject, Match], Op | None],
) -> Rule:
    """Rule that puts one operator on the value ``x`` in the place of a formula.

    Parameters
    ----------
    roots : operators that the formula can end with.
    build : the operator, None where the match does not hold after all.
    """

    needed = needed_operators(pattern)

    def rule(subject: Subject, node: Node) -> Patch | None:
        if not isinstance(node.op, roots) or not needed <= subject.op_types:
            return None
        for match in matches(subject, node, pattern):
            op = build(subject, match) if keeps_type(subject, match) else None
            if op is not None:
                new = Node(node.name, op, (match.values["x"],), node.outputs)
                return Patch(match.nodes, (new,))
        return None

    return rule


def matches(subject: Subject, node: Node, pattern: Pattern) -> Iterator[Match]:
    """Ways to match the node's first output, such that nothing else reads what lies inside.

    A variable that stands for something inside would be read by what takes the formula's place.
    """
    named = _call_names(pattern)
    for match in _match(subject, node.outputs[0], pattern, Match()):
        inner = tuple(n for n in match.nodes if n.name != node.name)
        inside = {name for n in inner for name in n.outputs}
        free = {value for name, value in match.values.items() if name not in named}
        if inside.isdisjoint(free) and _unseen(subject, node, inner):
            yield replace(match, nodes=(node, *inner))


def needed_operators(pattern: Pattern) -> frozenset[type[Op]]:
    """Operators without which a graph cannot hold the formula."""
    parts = map(needed_operators, _parts(pattern))
    if isinstance(pattern, OneOf):
        return frozenset.intersection(*parts)
    own: set[type[Op]] = {pattern.op_type} if isinstance(pattern, Call) else set()
    return frozenset(own).union(*parts)


def _call_names(pattern: Pattern) -> frozenset[str]:
    """Names of values inside of the formula."""
    own: frozenset[str] = frozenset()
    if isinstance(pattern, Call):
        own = frozenset() if pattern.name is None else frozenset({pattern.name})
    return own.union(*map(_call_names, _parts(pattern)))


def _parts(pattern: Pattern) -> tuple[Pattern, ...]:
    if isinstance(pattern, OneOf):
        return pattern.patterns
    if isinstance(pattern, Call):
        return pattern.args
    return pattern.terms if isinstance(pattern, Product | Sum) else ()


def keeps_type(subject: Subject, match: Match) -> bool:
    """Whether the numbers of a match do not broadcast ``x`` to another shape."""
    if match.rank == 0:
        return True
    found = subject.tensor(match.values["x"])
    return found is not None and found == subject.tensor(match.nodes[0].outputs[0])


def scalar_of(array: Array | None) -> float | None:
    """The number in a constant of one element, else None."""
    if array is None or array.size != 1 or array.dtype.kind not in "fiuV":
        return None
    return float(array.reshape(()))


def _unseen(subject: Subject, root: Node, inner: Sequence[Node]) -> bool:
    inside = {root.name, *(node.name for node in inner)}
    return all(
        name not in subject.outputs and all(r.name in inside for r in subject.consumers(name))
        for node in inner
        for name in node.outputs
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
        if number is not None:
            cut = _number_cut(array, number)
            yield from _with_number(match, cut, pattern.number)
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


def _match_call(subject: Subject, value: str, pattern: Call, match: Match) -> Iterator[Match]:
    node = subject.producer(value, pattern.op_type)
    if node is None or node.outputs[0] != value or len(node.inputs) != len(pattern.args):
        return
    if pattern.where is not None and not pattern.where(node.op):
        return
    covered = match.covering(node)
    orders = [node.inputs]
    if isinstance(node.op, _COMMUTATIVE) and len(node.inputs) == 2:
        orders.append(node.inputs[::-1])
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
    algebra = _PRODUCT if isinstance(pattern, Product) else _SUM
    for cut in _cuts(subject, value, algebra, len(pattern.terms), whole=True):
        if len(cut.leaves) == len(pattern.terms):
            for numbered in _with_number(match.covering(*cut.nodes), cut, pattern.number):
                for order in dict.fromkeys(permutations(cut.leaves)):
                    yield from _match_all(subject, order, pattern.terms, numbered)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A value as a number and leaves: one way to cut the tree of its factors or terms."""

    number: float
    leaves: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    rank: int = 0
    tolerance: float = _TOLERANCE


@dataclass(frozen=True, slots=True)
class _Algebra:
    """Products or sums. ``split`` takes a node apart: its number, and the values that it joins."""

    split: Callable[[Subject, Node], tuple[_Cut, tuple[str, ...]] | None]
    combine: Callable[[float, float], float]
    neutral: float


def _with_number(match: Match, cut: _Cut, wanted: float | str) -> Iterator[Match]:
    ranked = replace(match, rank=max(match.rank, cut.rank))
    if isinstance(wanted, str):
        yield replace(ranked, numbers={**match.numbers, wanted: cut.number})
    elif isclose(cut.number, wanted, rel_tol=cut.tolerance):
        yield ranked


def _cuts(
    subject: Subject, value: str, algebra: _Algebra, limit: int, whole: bool = False
) -> Iterator[_Cut]:
    """Cuts of at most ``limit`` leaves, deepest first; what others read too is a leaf."""
    node = subject.producer(value, Op) if whole or subject.private(value) else None
    parts = None if node is None else algebra.split(subject, node)
    if parts is not None:
        yield from _joined(subject, *parts, algebra, limit)
    if limit:
        yield _Cut(algebra.neutral, (value,))


def _joined(
    subject: Subject, start: _Cut, operands: Sequence[str], algebra: _Algebra, limit: int
) -> Iterator[_Cut]:
    if not operands:
        yield start
        return
    for cut in _cuts(subject, operands[0], algebra, limit - len(start.leaves)):
        joined = _Cut(
            algebra.combine(start.number, cut.number),
            start.leaves + cut.leaves,
            start.nodes + cut.nodes,
            max(start.rank, cut.rank),
            max(start.tolerance, cut.tolerance),
        )
        yield from _joined(subject, joined, operands[1:], algebra, limit)


def _factors(subject: Subject, node: Node) -> tuple[_Cut, tuple[str, ...]] | None:
    inputs = node.reads
    if isinstance(node.op, Neg):
        return _Cut(-1.0, nodes=(node,)), inputs
    if isinstance(node.op, Mul):
        return _commutative(subject, node, 1.0)
    if not isinstance(node.op, Div | Pow):
        return None
    array = subject.constant(inputs[1])
    number = scalar_of(array)
    if isinstance(node.op, Div) and number:
        return _number_cut(array, 1 / number, node), inputs[:1]
    if isinstance(node.op, Pow) and number in range(2, _HIGHEST_POWER + 1):
        return replace(_number_cut(array, 1.0, node), leaves=inputs[:1] * int(number or 0)), ()
    return None


def _addends(subject: Subject, node: Node) -> tuple[_Cut, tuple[str, ...]] | None:
    if isinstance(node.op, Add):
        return _commutative(subject, node, 0.0)
    if not isinstance(node.op, Sub):
        return None
    array = subject.constant(node.reads[1])
    number = scalar_of(array)
    return None if number is None else (_number_cut(array, -number, node), node.reads[:1])


def _commutative(subject: Subject, node: Node, neutral: float) -> tuple[_Cut, tuple[str, ...]]:
    first, last = node.reads
    for number_name, rest in ((last, first), (first, last)):
        array = subject.constant(number_name)
        number = scalar_of(array)
        if number is not None:
            return _number_cut(array, number, node), (rest,)
    return _Cut(neutral, nodes=(node,)), (first, last)


def _number_cut(array: Array, number: float, *nodes: Node) -> _Cut:
    tolerance = max(_TOLERANCE, _ROUNDING.get(array.dtype, 0.0))
    return _Cut(number, (), nodes, array.ndim, tolerance)


_PRODUCT = _Algebra(_factors, operator.mul, 1.0)
_SUM = _Algebra(_addends, operator.add, 0.0)
