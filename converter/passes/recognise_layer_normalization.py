"""Recognise LayerNormalization."""

from __future__ import annotations

from mnnpy.converter.passes.normalizing import absorb_bias, absorb_scale, normalization_rule
from mnnpy.converter.passes.patterns import Call, Constant, OneOf, Product, Scalar, Sum, Var
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import apply_rules
from mnnpy.runtime.ops.elementwise import Div, Mul, Reciprocal, Sqrt, Sub
from mnnpy.runtime.ops.normalization import LayerNormalization
from mnnpy.runtime.ops.reduction import ReduceMean

_X, _CENTRED = Var("x"), Var("centred")
_MEAN = Call(ReduceMean, _X, Constant("axes"), name="mean", where=lambda op: op.keepdims)
_SHIFTED = Call(Sub, _X, _MEAN, name="centred")
_SQUARE = OneOf(Product(1.0, _CENTRED, _CENTRED), Product(1.0, _SHIFTED, _CENTRED))
_VARIANCE = Call(ReduceMean, _SQUARE, Constant("square_axes"), where=lambda op: op.keepdims)
_DEVIATION = Call(Sqrt, Sum("epsilon", _VARIANCE))
_INVERSE = OneOf(Call(Reciprocal, _DEVIATION), Call(Div, Scalar(1.0), _DEVIATION))
_PLAIN = OneOf(Call(Div, _SHIFTED, _DEVIATION), Product(1.0, _SHIFTED, _INVERSE))

_SCALED = Call(Mul, Constant("scale"), Call(Reciprocal, _DEVIATION), name="scaled")
_AT_ZERO = Call(Sub, Constant("bias"), Product(1.0, Var("mean"), Var("scaled")))
_UNCENTRED = Sum(0.0, Product(1.0, _X, _SCALED), _AT_ZERO)
"""How Keras writes it: x * s + (bias - mean * s), s being scale / deviation."""


def recognise_layer_normalization(graph: Graph) -> Graph:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon) over trailing axes, then scale and bias."""
    return apply_rules(
        graph,
        normalization_rule(_PLAIN, LayerNormalization),
        normalization_rule(_UNCENTRED, LayerNormalization),
        absorb_scale(LayerNormalization),
        absorb_bias(LayerNormalization),
    )
