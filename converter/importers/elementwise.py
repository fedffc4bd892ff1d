"""Importers of elementwise operators, activations and Dropout."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.importers.base import (
    Imported,
    Importer,
    OnnxNode,
    Row,
    build,
    direct,
    with_inputs,
)
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops import logic
from mnnpy.runtime.ops.casting import CastLike
from mnnpy.runtime.ops.dropout import Dropout


def _broadcast_1(op: type[Op]) -> Importer:
    """Before opset 7, ``axis`` says where the second input's axes begin in the first's."""

    def importer(node: OnnxNode) -> Op | Imported:
        axis = node.attributes.get("axis")
        if axis is None:
            return op()
        return _aligned(node, op(), axis)

    return importer


def _prelu_1(node: OnnxNode) -> Imported:
    """Before opset 7, the slope is one number per channel."""
    return _aligned(node, act.PRelu(), 1)


def _aligned(node: OnnxNode, op: Op, axis: int) -> Imported:
    x, y = node.inputs
    aligned = node.value_name("aligned")
    align = Node(f"{node.name}.align", ew.AlignAxes(axis), (y, x), (aligned,))
    return Imported((align, Node(node.name, op, (x, aligned), node.outputs)))


def _selu_1(node: OnnxNode) -> Op:
    rounded = {"alpha": 1.6732, "gamma": 1.0507}
    return build(act.Selu, node, ("consumed_inputs",), **(rounded | dict(node.attributes)))


def _dropout_1(node: OnnxNode) -> Imported:
    if node.attributes.get("is_test", 0):
        return _dropout_7(node)
    ratio = np.float32(node.attributes.get("ratio", 0.5))
    return with_inputs(node, Dropout(), node.inputs[0], np.asarray(ratio), np.asarray(True))


def _dropout_7(node: OnnxNode) -> Imported:
    """Before opset 10, the mask is of the data's type."""
    kept = _kept(node)
    if len(node.outputs) < 2:
        return kept
    (dropout,) = kept.nodes
    mask = node.value_name("mask")
    bools = Node(dropout.name, dropout.op, dropout.inputs, (node.outputs[0], mask))
    cast = Node(f"{node.name}.mask", CastLike(), (mask, node.inputs[0]), (node.outputs[1],))
    return Imported((bools, cast))


def _kept(node: OnnxNode) -> Imported:
    """Dropout at inference: the identity, with a mask that keeps everything."""
    op: Op = Dropout() if len(node.outputs) > 1 else ew.Identity()
    return Imported((Node(node.name, op, node.inputs[:1], node.outputs),))


def _dropout_12(node: OnnxNode) -> Op | Imported:
    training = node.constant(2)
    if node.input(2) is None or (training is not None and not training.any()):
        return _kept(node)
    return build(Dropout, node)


_UNCHANGED: dict[int, tuple[type[Op], ...]] = {
    1: (
        *(ew.Identity, ew.Abs, ew.Neg, ew.Exp, ew.Log, ew.Sqrt, ew.Reciprocal, ew.Floor, ew.Ceil),
        *(ew.Max, ew.Min, ew.Sum, ew.Mean, logic.Not),
        *(act.Relu, act.Sigmoid, act.Tanh, act.LeakyRelu, act.Elu, act.HardSigmoid),
        *(act.Softplus, act.Softsign),
    ),
    6: (act.Selu,),
    7: (
        *(ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Pow, logic.Equal, logic.Greater, logic.Less),
        *(logic.And, logic.Or, logic.Xor, act.PRelu),
        *(ew.Sin, ew.Cos, ew.Tan, ew.Asin, ew.Acos, ew.Atan),
    ),
    9: (
        *(ew.Sign, ew.Erf, ew.Where, ew.Sinh, ew.Cosh, ew.Asinh, ew.Acosh, ew.Atanh),
        *(logic.IsNaN, act.Shrink),
    ),
    10: (ew.Mod, logic.IsInf, act.ThresholdedRelu),
    11: (ew.Round, logic.BitShift),
    12: (logic.GreaterOrEqual, logic.LessOrEqual, act.Celu),
    14: (act.HardSwish,),
    18: (logic.BitwiseAnd, logic.BitwiseOr, logic.BitwiseXor, logic.BitwiseNot, act.Mish),
    20: (act.Gelu,),
    24: (act.Swish,),
    28: (act.SwiGLU,),
}
"""Operators whose attributes have been the same since the opset."""

_BROADCAST_1: tuple[type[Op], ...] = (
    *(ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Pow),
    *(logic.Equal, logic.Greater, logic.Less, logic.And, logic.Or, logic.Xor),
)

ROWS: tuple[Row, ...] = (
    *(
        Row(op.__name__, since, direct(op, "consumed_inputs"))
        for since, ops in _UNCHANGED.items()
        for op in ops
    ),
    *(Row(op.__name__, 1, _broadcast_1(op)) for op in _BROADCAST_1),
    Row("PRelu", 1, _prelu_1),
    Row("Selu", 1, _selu_1),
    Row("Dropout", 1, _dropout_1),
    Row("Dropout", 7, _dropout_7),
    Row("Dropout", 10, _kept),
    Row("Dropout", 12, _dropout_12),
)
