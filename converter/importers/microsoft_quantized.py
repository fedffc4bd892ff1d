"""Importers of com.microsoft's quantised operators.

What ONNX Runtime computes on quantised numbers is, by definition, the float operator between
DequantizeLinear and QuantizeLinear, and so it is written here. Products stay in integers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, Importer, OnnxNode, Row
from mnnpy.converter.importers.microsoft import (
    MICROSOFT,
    channels_first,
    channels_last,
    picked,
    sum_of,
)
from mnnpy.converter.importers.microsoft_attention import refuse_inputs
from mnnpy.runtime.errors import UnsupportedOperatorError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import DTYPES, UINT8, Array, dtype_name
from mnnpy.runtime.ops.activation import LeakyRelu, Sigmoid
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.elementwise import Add, Identity, Mul, Sub, Where
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.pooling import AveragePool, GlobalAveragePool
from mnnpy.runtime.ops.quantization import DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear
from mnnpy.runtime.ops.quantized_products import MatMulInteger, QLinearConv
from mnnpy.runtime.ops.recurrent import LSTM
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.shaping import Transpose, Unsqueeze
from mnnpy.runtime.ops.slicing import Concat

OfNode = Callable[[OnnxNode], Op]


def _dequantized(make: Composition, node: OnnxNode, place: int) -> str:
    """Name of the input at ``place`` times its scale, which follows it with its zero point."""
    return make(DequantizeLinear(), *(node.input(place + i) for i in range(3)))


def _quantized(make: Composition, node: OnnxNode, y: str, scale: int) -> Imported:
    """The node's output: ``y`` over the scale at an input's place, whose zero point follows."""
    zero_point = node.input(scale + 1)
    dtype = None if zero_point is not None else dtype_name(node.require_tensor(0).dtype)
    return make.result(QuantizeLinear(output_dtype=dtype), y, node.require_input(scale), zero_point)


def _unary(op: OfNode, pools: bool = False) -> Importer:
    """An operator of one input; inputs are x, its scale and zero point, y's scale and zero point.

    Where it ``pools``, the channels may come last.
    """

    def importer(node: OnnxNode) -> Imported:
        make = Composition(node)
        x = _dequantized(make, node, 0)
        if not (pools and node.attributes.get("channels_last", 0)):
            return _quantized(make, node, make(op(node), x), 3)
        rank = node.require_tensor(0).rank
        y = make(op(node), channels_first(make, x, rank))
        return _quantized(make, node, make(channels_last(rank), y), 3)

    return importer


def _binary(op: Op) -> Importer:
    """An operator of two inputs, each followed by its scale and zero point, as is y at the end."""

    def importer(node: OnnxNode) -> Imported:
        make = Composition(node)
        y = make(op, _dequantized(make, node, 0), _dequantized(make, node, 3))
        return _quantized(make, node, y, 6)

    return importer


def _average_pool(node: OnnxNode) -> Op:
    names = ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "count_include_pad")
    return AveragePool(**picked(node, *names))


def _concat(node: OnnxNode) -> Imported:
    """Inputs are y's scale and zero point, then pieces, each with its scale and zero point."""
    make = Composition(node)
    pieces = (_dequantized(make, node, place) for place in range(2, len(node.inputs), 3))
    y = make(Concat(node.attributes["axis"]), *pieces)
    return make.result(QuantizeLinear(), y, node.require_input(0), node.require_input(1))


def _where(node: OnnxNode) -> Imported:
    make = Composition(node)
    pair = (_dequantized(make, node, place) for place in (1, 4))
    y = make(Where(), node.require_input(0), *pair)
    return make.result(QuantizeLinear(), y, node.require_input(7), node.require_input(8))


def _convolution(node: OnnxNode) -> Imported:
    """ONNX's, or with x and y : (n, *spatial, c)."""
    make = Composition(node)
    op = QLinearConv(**picked(node, "strides", "pads", "dilations", "group", "auto_pad"))
    if not node.attributes.get("channels_last", 0):
        return make.result(op, *node.inputs)
    rank = node.require_tensor(0).rank
    x = channels_first(make, node.require_input(0), rank)
    return make.result(channels_last(rank), make(op, x, *node.inputs[1:]))


def _scaled_product(
    make: Composition, factors: tuple[str | None, ...], scales: tuple[str, ...]
) -> str:
    """Name of a product of integers (a, b and their zero points) times the scales, in float32."""
    product = make(Cast("float32"), make(MatMulInteger(), *factors))
    return make(Mul(), product, make(Mul(), *scales))


def _matmul_to_float(node: OnnxNode) -> Imported:
    make = Composition(node)
    a, b, a_scale, b_scale = (node.require_input(place) for place in range(4))
    factors = (a, b, node.input(4), node.input(5))
    y = _scaled_product(make, factors, (a_scale, b_scale))
    return make.result(Identity(), sum_of(make, y, node.input(6)))


def _dynamic_matmul(node: OnnxNode) -> Imported:
    make = Composition(node)
    x, b, b_scale = (node.require_input(place) for place in range(3))
    a, a_scale, a_zero = make.several(3, DynamicQuantizeLinear(), x)
    y = _scaled_product(make, (a, b, a_zero, node.input(3)), (a_scale, b_scale))
    return make.result(Identity(), sum_of(make, y, node.input(4)))


def _gemm(node: OnnxNode) -> Imported:
    """alpha * A B + C, C being int32 in units of alpha and both scales; float without y's scale."""
    make = Composition(node)
    a, a_scale, b, b_scale = (node.require_input(place) for place in (0, 1, 3, 4))
    a, b = (
        make(Transpose((1, 0)), x) if node.attributes.get(name, 0) else x
        for x, name in ((a, "transA"), (b, "transB"))
    )
    sums = make(MatMulInteger(), a, b, node.input(2), node.input(5))
    sums = sum_of(make, sums, node.input(6))
    alpha = np.asarray(node.attributes.get("alpha", 1.0), np.float32)
    scale = make(Mul(), make(Mul(), a_scale, b_scale), alpha)
    y = make(Mul(), make(Cast("float32"), sums), scale)
    if node.input(7) is None:
        return make.result(Identity(), y)
    return make.result(QuantizeLinear(), y, node.require_input(7), node.require_input(8))


def _dynamic_lstm(node: OnnxNode) -> Imported:
    """LSTM with quantised weights, (directions, features, 4 * hidden).

    ONNX Runtime quantises x and h on the way; here they stay as they are, which is more exact.
    """
    make = Composition(node)
    x, bias, lengths, h, c, peepholes = (node.input(place) for place in (0, 3, 4, 5, 6, 7))
    w, r = (
        make(Transpose((0, 2, 1)), _weights(make, node, place, scale))
        for place, scale in ((1, 8), (2, 10))
    )
    names = ("direction", "activations", "activation_alpha", "activation_beta", "clip")
    op = LSTM(**picked(node, *names, "input_forget"))
    return make.write(op, (x, w, r, bias, lengths, h, c, peepholes), node.outputs)


def _weights(make: Composition, node: OnnxNode, place: int, scale: int) -> str:
    """Name of dequantised weights whose scale is per direction, or per direction and column."""
    numbers = make(Cast("float32"), node.require_input(place))
    factors = [node.require_input(scale), node.input(scale + 1)]
    if node.require_tensor(scale).rank > 0:
        rank = node.require_tensor(scale).rank
        axes = np.asarray([1, 2] if rank == 1 else [1], np.int64)
        factors = [None if name is None else make(Unsqueeze(), name, axes) for name in factors]
    if factors[1] is not None:
        numbers = make(Sub(), numbers, make(Cast("float32"), factors[1]))
    return make(Mul(), numbers, factors[0])


def _matmul_few_bits(node: OnnxNode) -> Imported:
    """A times weights of 2, 4 or 8 bits, (n, blocks, bytes), with a scale per block.

    The weights are unpacked and transposed, and stay quantised.
    """
    refuse_inputs(node, 4)
    make, attributes = Composition(node), node.attributes
    packed, scales, zeros = (node.constant(place) for place in (1, 2, 3))
    if packed is None or scales is None or (zeros is None and node.input(3) is not None):
        raise UnsupportedOperatorError(f"{node}: needs constant weights, scales and zero points")
    bits, size, k = attributes.get("bits", 4), attributes["block_size"], attributes["K"]
    scales = scales.reshape(attributes["N"], -1)
    weights = _unpacked(packed, bits, (len(scales), k))
    if zeros is None:
        zeros = np.full(scales.shape, 1 << (bits - 1), weights.dtype)
    elif zeros.dtype == UINT8:
        zeros = _unpacked(zeros, bits, scales.shape)
    if zeros.dtype == weights.dtype:
        dequantize = DequantizeLinear(axis=0, block_size=size)
        w = make(dequantize, weights.T.copy(), scales.T.copy(), zeros.T.copy())
    else:
        steps = weights.astype(scales.dtype) - _repeated(zeros.reshape(scales.shape), size, k)
        w = make(Identity(), (steps * _repeated(scales, size, k)).T.copy())
    return make.result(Identity(), sum_of(make, make(MatMul(), node.inputs[0], w), node.input(5)))


def _unpacked(packed: Array, bits: int, shape: tuple[int, ...]) -> Array:
    """Rows of numbers that lie in bytes, the first one lowest."""
    if bits not in (2, 4, 8):
        raise UnsupportedOperatorError(f"numbers of {bits} bits: there are 2, 4 and 8")
    places = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = packed.reshape(shape[0], -1, 1) >> places & np.uint8((1 << bits) - 1)
    return numbers.reshape(shape[0], -1)[:, : shape[1]].astype(DTYPES[f"uint{bits}"])


def _repeated(x: Array, size: int, count: int) -> Array:
    """Every column ``size`` times, ``count`` columns in all."""
    return np.repeat(x, size, axis=1)[:, :count]


def _with_dtypes(op_type: type[Op]) -> Importer:
    return lambda node: op_type(**picked(node, "axis", "block_size"))


def _softmax(node: OnnxNode) -> Op:
    old = node.attributes.get("opset", 0) < 13
    return Softmax(node.attributes.get("axis", 1 if old else -1), trailing=old)


_IMPORTERS: dict[str, Importer] = {
    "QuantizeLinear": _with_dtypes(QuantizeLinear),
    "DequantizeLinear": _with_dtypes(DequantizeLinear),
    "QLinearAdd": _binary(Add()),
    "QLinearMul": _binary(Mul()),
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QLinearConv": _convolution,
    "QLinearSigmoid": _unary(lambda node: Sigmoid()),
    "QLinearLeakyRelu": _unary(lambda node: LeakyRelu(**picked(node, "alpha"))),
    "QLinearSoftmax": _unary(_softmax),
    "QLinearGlobalAveragePool": _unary(lambda node: GlobalAveragePool(), pools=True),
    "QLinearAveragePool": _unary(_average_pool, pools=True),
    "QGemm": _gemm,
    "MatMulIntegerToFloat": _matmul_to_float,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "MatMulNBits": _matmul_few_bits,
}

ROWS: tuple[Row, ...] = tuple(Row(name, 1, make, MICROSOFT) for name, make in _IMPORTERS.items())
