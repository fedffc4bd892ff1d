"""Recognise Swish (SiLU)."""

from __future__ import annotations

from mnnpy.converter.passes.patterns import Call, Match, Product, Var, recognise
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import Subject, apply_rules
from mnnpy.runtime.ops.activation import Sigmoid, Swish
from mnnpy.runtime.ops.elementwise import Mul

_X = Var("x")
_PATTERN = Product(1.0, _X, Call(Sigmoid, Product("alpha", _X)))


def recognise_swish(graph: Graph) -> Graph:
    """x * Sigmoid(alpha * x)."""
    return apply_rules(graph, recognise(Mul, _PATTERN, _swish))


def _swish(subject: Subject, match: Match) -> Swish:
    return Swish(match.numbers["alpha"])
