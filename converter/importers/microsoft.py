"""Importers of com.microsoft: what ONNX Runtime's optimisers fuse, taken apart again.

Every operator here is a composition of ONNX's own, which backends know and passes recognise.
Attention is in ``microsoft_attention``, quantised operators are in ``microsoft_quantized``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, Importer, OnnxNode, Row, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.errors import UnsupportedOperatorError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import DTYPES
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Identity, Mul, Reciprocal, Sqrt, Sub
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.linear_algebra import Inverse
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import LayerNormalization, RMSNormalization
from mnnpy.runtime.ops.pooling import MaxPool
from mnnpy.runtime.ops.reduction import ReduceL2, ReduceMean, ReduceSum, ReduceSumSquare
from mnnpy.runtime.ops.selection import Trilu
from mnnpy.runtime.ops.shaping import Shape, Transpose, Unsqueeze
from mnnpy.runtime.ops.slicing import Slice, Split

MICROSOFT = "com.microsoft"

_ACTIVATIONS: dict[str, Callable[..., Op]] = {
    "": Identity,
    **{
        op.__name__: op
        for op in (
            *(act.Relu, act.Sigmoid, act.Tanh, act.LeakyRelu, act.Elu, act.Selu, act.HardSigmoid),
            *(act.Softplus, act.Softsign, act.ThresholdedRelu, act.HardSwish),
        )
    },
}


def sum_of(make: Composition, first: str, *others: str | None) -> str:
    """Name of the sum of a value and those of the others that are there."""
    for name in others:
        first = first if name is None else make(Add(), first, name)
    return first


def channels_first(make: Composition, x: str, rank: int) -> str:
    """Name of a value whose last axis is brought to the second place."""
    return make(Transpose((0, rank - 1, *range(1, rank - 1))), x)


def channels_last(rank: int) -> Op:
    """The operator that undoes :func:`channels_first`."""
    return Transpose((0, *range(2, rank), 1))


def picked(node: OnnxNode, *names: str) -> dict[str, Any]:
    """Those of the named attributes that the node has."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


def _activated(make: Composition, node: OnnxNode, x: str, parameters: Sequence[float]) -> str:
    """Name of the node's activation of ``x``."""
    name = node.attributes.get("activation", "")
    if name == "Clip":
        bounds = (make.scalar(bound, node.require_input(0)) for bound in parameters)
        return make(act.Clip(), x, *bounds)
    if name not in _ACTIVATIONS:
        known = ", ".join(("Clip", *filter(None, _ACTIVATIONS)))
        raise UnsupportedOperatorError(f"{node}: activation {name!r} is none of {known}")
    return make(_ACTIVATIONS[name](*parameters), x)


_CONV = ("strides", "pads", "dilations", "group", "auto_pad")


def _fused_conv(node: OnnxNode) -> Imported:
    """Activation of a convolution, to which a fourth input is added before."""
    make = Composition(node)
    x, w, b, z = (node.input(place) for place in range(4))
    y = sum_of(make, make(Conv(**picked(node, *_CONV)), x, w, b), z)
    return make.result(Identity(), _activated(make, node, y, _convolution_parameters(node)))


def _nhwc_conv(node: OnnxNode) -> Imported:
    """The same on x : (n, *spatial, c) with weights (k, *kernel, c)."""
    make = Composition(node)
    rank = node.require_tensor(0).rank
    b, z = node.input(2), node.input(3)
    x, w = (channels_first(make, name, rank) for name in node.reads[:2])
    y = make(Conv(**picked(node, *_CONV)), x, w, b)
    y = sum_of(make, make(channels_last(rank), y), z)
    return make.result(Identity(), _activated(make, node, y, _convolution_parameters(node)))


def _convolution_parameters(node: OnnxNode) -> Sequence[float]:
    parameters: Sequence[float] = node.attributes.get("activation_params", ())
    return parameters


def _nhwc_max_pool(node: OnnxNode) -> Imported:
    make = Composition(node)
    rank = node.require_tensor(0).rank
    names = ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode")
    x = channels_first(make, node.require_input(0), rank)
    return make.result(channels_last(rank), make(MaxPool(**picked(node, *names)), x))


def _fused_gemm(node: OnnxNode) -> Imported:
    make = Composition(node)
    y = make(Gemm(**picked(node, "alpha", "beta", "transA", "transB")), *node.inputs)
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return make.result(Identity(), _activated(make, node, y, tuple(picked(node, *names).values())))


def _fused_matmul(node: OnnxNode) -> Imported:
    """alpha * A B, where A and B may come transposed."""
    make = Composition(node)
    a, b = (_factor(make, node, place, side) for place, side in enumerate("AB"))
    alpha = node.attributes.get("alpha", 1.0)
    if alpha == 1:
        return make.result(MatMul(), a, b)
    return make.result(Mul(), make(MatMul(), a, b), make.scalar(alpha, node.reads[0]))


def _factor(make: Composition, node: OnnxNode, place: int, side: str) -> str:
    """Name of a factor, turned as ``trans`` and ``transBatch`` of its side say."""
    turned, batch = (node.attributes.get(f"{name}{side}", 0) for name in ("trans", "transBatch"))
    name = node.reads[place]
    if not (turned or batch):
        return name
    rank = node.require_tensor(place).rank
    perm = tuple(range(rank))
    if batch:
        perm = (*perm[1:-1], perm[0], perm[-1])
    if turned and rank > 1:
        perm = (*perm[:-2], perm[-1], perm[-2])
    return make(Transpose(perm), name)


def _after_bias(op: Op) -> Importer:
    """An operator of the sum of all inputs."""

    def importer(node: OnnxNode) -> Imported:
        make = Composition(node)
        return make.result(op, sum_of(make, node.reads[0], *node.inputs[1:]))

    return importer


def _quick_gelu(node: OnnxNode) -> Op:
    return act.Swish(node.attributes.get("alpha", 1.702))


def _bias_split_gelu(node: OnnxNode) -> Imported:
    """Of x plus bias, one half of the features times Gelu of the other."""
    make = Composition(node)
    left, right = make.several(2, Split(2, -1), sum_of(make, *node.reads))
    return make.result(Mul(), left, make(act.Gelu(), right))


def _skip_layer_normalization(node: OnnxNode) -> Imported:
    """Layer normalization of x + skip + bias; output 3 is that sum."""
    make = Composition(node)
    total = _skipping(make, node, bias=node.input(4))
    op = LayerNormalization(epsilon=node.attributes.get("epsilon", 1e-12))
    return make.write(op, (total, node.input(2), node.input(3)), node.outputs[:3])


def _skip_rms_normalization(node: OnnxNode) -> Imported:
    """The same over the root mean square: there is no shift, and output 1 is not computed."""
    make = Composition(node)
    total = _skipping(make, node, bias=node.input(3))
    epsilon = node.attributes.get("epsilon", 1e-12)
    _inverse_root(make, node, total, epsilon, node.output(2))
    return make.result(RMSNormalization(epsilon=epsilon), total, node.input(2))


def _skipping(make: Composition, node: OnnxNode, bias: str | None) -> str:
    """Name of the sum of inputs 0 and 1 and a bias, which is output 3 too."""
    total = sum_of(make, node.require_input(0), bias, node.require_input(1))
    if (wanted := node.output(3)) is not None:
        make(Identity(), total, into=wanted)
    return total


def _rms_normalization(node: OnnxNode) -> Imported:
    """What ONNX Runtime puts into ONNX's own domain; output 1 is 1 / the root mean square."""
    make = Composition(node)
    x, scale = node.reads
    stash = dtype_field(node.attributes.get("stash_type", 1)) or "float32"
    op = RMSNormalization(**picked(node, "axis", "epsilon"), stash_type=stash)
    _inverse_root(make, node, x, op.epsilon, node.output(1), op.axis, stash)
    return make.result(op, x, scale)


def _inverse_root(
    make: Composition,
    node: OnnxNode,
    x: str,
    epsilon: float,
    into: str | None,
    axis: int = -1,
    stash: str = "float32",
) -> None:
    """1 / the root mean square from ``axis`` on, where an output asks for it."""
    if into is None:
        return
    last = 0 if axis < 0 else node.require_tensor(0).rank
    stashed = make(Cast(stash), x)
    square = make(ReduceMean(), make(Mul(), stashed, stashed), np.arange(axis, last))
    shifted = make(Add(), square, np.asarray(epsilon, DTYPES[stash]))
    make(Reciprocal(), make(Sqrt(), shifted), into=into)


def _embed_layer_normalization(node: OnnxNode) -> Imported:
    """Layer normalization of the sum of word, position and segment embeddings.

    Output 1 counts what the mask lets through, output 2 is the sum.
    """
    make = Composition(node)
    segments, words, positions, kinds, scale, shift, mask, places = (
        node.input(place) for place in range(1, 9)
    )
    ids = node.require_input(0)
    if places is None:
        length, zero = make(Shape(1, 2), ids), np.zeros(1, np.int64)
        position = make(Slice(), positions, zero, length, zero)
    else:
        position = make(Gather(), positions, places)
    segment = None if segments is None else make(Gather(), kinds, segments)
    total = sum_of(make, make(Gather(), words, ids), position, segment)
    counts, embedded = node.output(1), node.output(2)
    if node.attributes.get("mask_index_type", 1) == 0:
        counts, embedded = None, counts
    if counts is not None:
        seen = make(Mul(), make(Cast("int32"), ids), np.int32(0)) if mask is None else mask
        make(ReduceSum(0), seen, np.ones(1, np.int64), into=counts)
    if embedded is not None:
        make(Identity(), total, into=embedded)
    op = LayerNormalization(epsilon=node.attributes.get("epsilon", 1e-12))
    return make.result(op, total, scale, shift)


def _distances(node: OnnxNode) -> Imported:
    """Distances of all rows of a to all rows of b."""
    make = Composition(node)
    a, b = (make(Unsqueeze(), x, np.asarray([1 - i])) for i, x in enumerate(node.reads))
    op = ReduceSumSquare(0) if node.attributes.get("metric") == "sqeuclidean" else ReduceL2(0)
    return make.result(op, make(Sub(), a, b), np.asarray([2]))


_IMPORTERS: dict[str, Importer] = {
    "FusedConv": _fused_conv,
    "NhwcConv": _nhwc_conv,
    "NhwcFusedConv": _nhwc_conv,
    "NhwcMaxPool": _nhwc_max_pool,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "Gelu": _after_bias(act.Gelu()),
    "BiasGelu": _after_bias(act.Gelu()),
    "FastGelu": _after_bias(act.Gelu("tanh")),
    "QuickGelu": _quick_gelu,
    "BiasAdd": _after_bias(Identity()),
    "BiasSplitGelu": _bias_split_gelu,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_rms_normalization,
    "EmbedLayerNormalization": _embed_layer_normalization,
    "CDist": _distances,
    "Inverse": direct(Inverse),
    "Trilu": direct(Trilu),
}

ROWS: tuple[Row, ...] = (
    *(Row(name, 1, importer, MICROSOFT) for name, importer in _IMPORTERS.items()),
    Row("SimplifiedLayerNormalization", 1, _rms_normalization),
)
