"""Recognise Mish."""

from __future__ import annotations

from mnnpy.converter.passes.patterns import Call, OneOf, Product, Sum, Var, recognise
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import apply_rules
from mnnpy.runtime.ops.activation import Mish, Softplus, Tanh
from mnnpy.runtime.ops.elementwise import Exp, Log, Mul

_X = Var("x")
_SOFTPLUS = OneOf(Call(Softplus, _X), Call(Log, Sum(1.0, Call(Exp, _X))))
_PATTERN = Product(1.0, _X, Call(Tanh, _SOFTPLUS))


def recognise_mish(graph: Graph) -> Graph:
    """x * Tanh(Softplus(x)), Softplus also as log(1 + exp(x))."""
    return apply_rules(graph, recognise(Mul, _PATTERN, lambda *_: Mish()))
