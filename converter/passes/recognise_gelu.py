"""Recognise Gelu, exact and with tanh."""

from __future__ import annotations

from math import pi, sqrt

from mnnpy.converter.passes.patterns import Call, OneOf, Product, Sum, Var, recognise
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import apply_rules
from mnnpy.runtime.ops.activation import Gelu, Tanh
from mnnpy.runtime.ops.elementwise import Div, Erf, Mul

_X = Var("x")

_ERF = Call(Erf, Product(sqrt(0.5), _X))
_EXACT = OneOf(
    Product(0.5, _X, Sum(1.0, _ERF)),
    Product(1.0, _X, Sum(0.5, Product(0.5, _ERF))),
)

_ROOT = sqrt(2 / pi)
_CUBIC = OneOf(
    Product(_ROOT, Sum(0.0, _X, Product(0.044715, _X, _X, _X))),
    Product(_ROOT, _X, Sum(1.0, Product(0.044715, _X, _X))),
)
_TANH = Product(0.5, _X, Sum(1.0, Call(Tanh, _CUBIC)))


def recognise_gelu(graph: Graph) -> Graph:
    """Gelu, written with Erf or Tanh in any order of factors."""
    return apply_rules(
        graph,
        recognise((Mul, Div), _EXACT, lambda *_: Gelu()),
        recognise((Mul, Div), _TANH, lambda *_: Gelu(approximate="tanh")),
    )
