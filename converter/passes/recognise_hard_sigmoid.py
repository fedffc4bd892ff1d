"""Recognise HardSigmoid."""

from __future__ import annotations

from math import isclose

from mnnpy.converter.passes.patterns import (
    Call,
    Match,
    OneOf,
    Pattern,
    Product,
    Scalar,
    Sum,
    Var,
    recognise,
)
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import Subject, apply_rules
from mnnpy.runtime.ops.activation import Clip, HardSigmoid, Relu
from mnnpy.runtime.ops.elementwise import Div, Max, Min, Mul


def clipped(x: Pattern) -> Pattern:
    """x between 0 and a number called ``top``."""
    low, top = Scalar(0.0), Scalar("top")
    return OneOf(
        Call(Clip, x, low, top),
        Call(Min, Call(Max, x, low), top),
        Call(Max, Call(Min, x, top), low),
        Call(Min, Call(Relu, x), top),
    )


_PATTERN = Product("factor", clipped(Sum("beta", Product("alpha", Var("x")))))


def recognise_hard_sigmoid(graph: Graph) -> Graph:
    """max(0, min(1, alpha * x + beta)), also as a Clip to [0, 6] over 6."""
    return apply_rules(graph, recognise((Clip, Min, Max, Mul, Div), _PATTERN, _hard_sigmoid))


def _hard_sigmoid(subject: Subject, match: Match) -> HardSigmoid | None:
    x = subject.tensor(match.values["x"])
    factor, top, alpha, beta = (match.numbers[n] for n in ("factor", "top", "alpha", "beta"))
    if x is None or x.dtype.kind not in "fV" or (alpha, beta) == (1.0, 0.0):
        return None
    if not isclose(factor * top, 1.0, rel_tol=1e-6):
        return None
    return HardSigmoid(alpha * factor, beta * factor)
