"""Recognise RMSNormalization."""

from __future__ import annotations

from mnnpy.converter.passes.normalizing import absorb_scale, normalization_rule
from mnnpy.converter.passes.patterns import Call, Constant, OneOf, Product, Scalar, Sum, Var
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import apply_rules
from mnnpy.runtime.ops.elementwise import Div, Reciprocal, Sqrt
from mnnpy.runtime.ops.normalization import RMSNormalization
from mnnpy.runtime.ops.reduction import ReduceMean

_X = Var("x")
_MEAN = Call(
    ReduceMean, Product(1.0, _X, _X), Constant("square_axes"), where=lambda op: op.keepdims
)
_ROOT = Call(Sqrt, Sum("epsilon", _MEAN))
_INVERSE = OneOf(Call(Reciprocal, _ROOT), Call(Div, Scalar(1.0), _ROOT))
_PATTERN = OneOf(Call(Div, _X, _ROOT), Product(1.0, _X, _INVERSE))


def recognise_rms_normalization(graph: Graph) -> Graph:
    """x / sqrt(mean(x^2) + epsilon) over trailing axes, then scale."""
    return apply_rules(
        graph,
        normalization_rule(_PATTERN, RMSNormalization),
        absorb_scale(RMSNormalization),
    )
