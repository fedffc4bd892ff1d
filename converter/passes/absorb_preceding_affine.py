"""Take scale and shift before a convolution or matrix product into its weights."""

from __future__ import annotations

from mnnpy.converter.passes.affine import (
    LINEAR,
    Affine,
    Linear,
    read_affine,
    read_linear,
    rebuilt,
)
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Div, Mul, Sub
from mnnpy.runtime.ops.matmul import Gemm
from mnnpy.runtime.ops.normalization import BatchNormalization


def absorb_preceding_affine(graph: Graph) -> Graph:
    """BatchNormalization, and Add, Sub, Mul and Div with constants per input channel, before
    Conv, ConvTranspose, Gemm and MatMul: into the weights and the bias.

    A shift stays where padding stands beside what it shifts.
    """
    return apply_rules(graph, _absorb)


def _absorb(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, LINEAR):
        return None
    before = subject.producer(node.inputs[0], (BatchNormalization, Add, Sub, Mul, Div))
    if before is None or len(before.outputs) != 1 or not subject.private(before.outputs[0]):
        return None
    linear = read_linear(subject, node)
    affine = None if linear is None else read_affine(subject, before, linear.rank)
    if linear is None or affine is None or not _exact(subject, linear, affine):
        return None
    scaling = bool((affine.scale != 1).any())
    weights = linear.scaled(affine.scale, linear.inputs) if scaling else None
    bias = linear.bias
    if affine.shift.any():
        bias = bias + linear.shifted_bias(affine.shift)
    return rebuilt(subject, linear, affine, weights, bias)


def _exact(subject: Subject, linear: Linear, affine: Affine) -> bool:
    sizes = (1, linear.channels(linear.inputs))
    if affine.scale.size not in sizes or affine.shift.size not in sizes:
        return False
    if isinstance(linear.op, Gemm) and linear.op.transA:
        return False
    if affine.shift.any() and not _unpadded(linear):
        return False
    x = subject.tensor(affine.x)
    return x is not None and x == subject.tensor(affine.node.outputs[0])


def _unpadded(linear: Linear) -> bool:
    op = linear.op
    if isinstance(op, ConvTranspose):
        return False
    return not isinstance(op, Conv) or (op.auto_pad in ("NOTSET", "VALID") and not any(op.pads))
