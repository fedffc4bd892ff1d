"""Recognise HardSwish."""

from __future__ import annotations

from math import isclose

from mnnpy.converter.passes.patterns import Call, Match, Product, Sum, Var, recognise
from mnnpy.converter.passes.recognise_hard_sigmoid import clipped
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import Subject, apply_rules
from mnnpy.runtime.ops.activation import HardSigmoid, HardSwish
from mnnpy.runtime.ops.elementwise import Div, Mul

_X = Var("x")


def _is_gate(op: HardSigmoid) -> bool:
    return isclose(op.alpha, 1 / 6, rel_tol=1e-6) and isclose(op.beta, 0.5, rel_tol=1e-6)


_GATED = Product(1.0, _X, Call(HardSigmoid, _X, where=_is_gate))
_CLIPPED = Product(1 / 6, _X, clipped(Sum(3.0, _X)))


def recognise_hard_swish(graph: Graph) -> Graph:
    """x * HardSigmoid(x) with alpha 1/6 and beta 1/2, and x * Clip(x + 3, 0, 6) / 6."""
    return apply_rules(
        graph,
        recognise(Mul, _GATED, lambda *_: HardSwish()),
        recognise((Mul, Div), _CLIPPED, _hard_swish),
    )


def _hard_swish(subject: Subject, match: Match) -> HardSwish | None:
    x = subject.tensor(match.values["x"])
    floating = x is not None and x.dtype.kind in "fV"
    return HardSwish() if floating and match.numbers["top"] == 6 else None
