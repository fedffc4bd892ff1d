"""Scale and shift per channel, and the operators that can take them into their weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import numpy as np

from mnnpy.converter.passes.growth import grows_too_much
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.rewrite import Patch, Subject
from mnnpy.runtime.graph.types import FLOAT64, Array
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Div, Mul, Sub
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import BatchNormalization

LINEAR = (Conv, ConvTranspose, Gemm, MatMul)

LinearOp: TypeAlias = Conv | ConvTranspose | Gemm | MatMul


@dataclass(frozen=True, slots=True)
class Affine:
    """x * scale + shift, both float64 of shape (channels,) or (1,), by one node."""

    node: Node
    x: str
    scale: Array
    shift: Array


def read_affine(subject: Subject, node: Node, rank: int) -> Affine | None:
    """The node as scale and shift along axis 1 of tensors of that rank; None where it is not."""
    if isinstance(node.op, BatchNormalization):
        return _read_batchnorm(subject, node)
    if not isinstance(node.op, Add | Sub | Mul | Div):
        return None
    first, second = node.reads
    for x, other in ((first, second), (second, first)):
        vector = _channel_vector(subject.constant(other), rank)
        if vector is None:
            continue
        one, zero = np.ones(1), np.zeros(1)
        if isinstance(node.op, Mul):
            return Affine(node, x, vector, zero)
        if isinstance(node.op, Add):
            return Affine(node, x, one, vector)
        if isinstance(node.op, Sub):
            return Affine(node, x, one, -vector) if x == first else Affine(node, x, -one, vector)
        return Affine(node, x, 1 / vector, zero) if x == first and vector.all() else None
    return None


def _read_batchnorm(subject: Subject, node: Node) -> Affine | None:
    assert isinstance(node.op, BatchNormalization)
    arrays = [subject.constant(name) for name in node.inputs[1:]]
    if node.op.training_mode or any(a is None or a.ndim != 1 for a in arrays):
        return None
    gamma, beta, mean, var = (array.astype(FLOAT64) for array in arrays if array is not None)
    scale = gamma / np.sqrt(var + node.op.epsilon)
    return Affine(node, node.reads[0], scale, beta - mean * scale)


def _channel_vector(array: Array | None, rank: int) -> Array | None:
    """A constant that differs along axis 1 only, as a float64 vector."""
    if array is None or array.ndim > rank or array.dtype.kind not in "fV":
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return array.reshape(-1).astype(FLOAT64)


@dataclass(frozen=True, slots=True)
class Linear:
    """A convolution or matrix product with constant weights.

    ``blocks`` are the weights as float64 (group, ., ., *kernel), where axis ``outputs`` counts the
    output channels of a group, and the other one its input channels. ``bias`` is a vector.
    """

    node: Node
    op: LinearOp
    rank: int
    weights: Array
    blocks: Array
    outputs: int
    bias: Array

    @property
    def inputs(self) -> int:
        return 3 - self.outputs

    def channels(self, axis: int) -> int:
        return int(self.blocks.shape[0] * self.blocks.shape[axis])

    def spread(self, vector: Array, axis: int) -> Array:
        """A vector of channels in a shape that broadcasts to ``blocks`` along ``axis``."""
        shape = [1] * self.blocks.ndim
        shape[0], shape[axis] = self.blocks.shape[0], self.blocks.shape[axis]
        return np.broadcast_to(vector, (prod(shape),)).reshape(shape)

    def scaled(self, vector: Array, axis: int) -> Array:
        """The weights with the channels of an axis multiplied."""
        return (self.blocks * self.spread(vector, axis)).reshape(self.weights.shape)

    def shifted_bias(self, shift: Array) -> Array:
        """What a shift of the input channels adds to the outputs, where nothing is padded."""
        axes = tuple(axis for axis in range(1, self.blocks.ndim) if axis != self.outputs)
        total = (self.blocks * self.spread(shift, self.inputs)).sum(axis=axes).reshape(-1)
        return total * (self.op.alpha if isinstance(self.op, Gemm) else 1.0)


def read_linear(subject: Subject, node: Node) -> Linear | None:
    """The node with its weights and bias; None where these are no constants."""
    op = node.op
    weights = subject.constant(node.inputs[1]) if isinstance(op, LINEAR) else None
    if weights is None or weights.dtype.kind not in "fV" or not isinstance(op, LINEAR):
        return None
    bias = _bias(subject, node)
    if bias is None or (isinstance(op, MatMul) and not _of_matrices(subject, node)):
        return None
    if isinstance(op, Conv | ConvTranspose):
        rows, columns, *kernel = weights.shape
        inner = (rows // op.group, columns) if rows % op.group == 0 else (rows, columns)
        blocks = weights.reshape(op.group, *inner, *kernel)
        outputs = 1 if isinstance(op, Conv) else 2
    else:
        blocks = weights.reshape(1, *weights.shape)
        outputs = 1 if isinstance(op, Gemm) and op.transB else 2
    return Linear(node, op, weights.ndim, weights, blocks.astype(FLOAT64), outputs, bias)


def _of_matrices(subject: Subject, node: Node) -> bool:
    a, weights = subject.tensor(node.inputs[0]), subject.constants[node.reads[1]]
    return a is not None and a.rank == 2 and weights.ndim == 2


def _bias(subject: Subject, node: Node) -> Array | None:
    """Bias as a float64 vector, zero where there is none; None where it is no constant vector."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return np.zeros(1)
    array = subject.constant(node.inputs[2])
    if not isinstance(node.op, Gemm):
        return None if array is None or array.ndim != 1 else array.astype(FLOAT64)
    vector = _channel_vector(array, 2)
    return None if vector is None else vector * node.op.beta


def rebuilt(
    subject: Subject, linear: Linear, affine: Affine, weights: Array | None, bias: Array
) -> Patch | None:
    """Patch that puts one operator in the place of two, with other weights (None: its own).

    None where the model would grow, or a number is not finite.
    """
    node, op, dtype = linear.node, linear.op, linear.weights.dtype
    before = affine.node.outputs[0] == node.inputs[0]
    x, outputs = (affine.x, node.outputs) if before else (node.reads[0], affine.node.outputs)
    constants: dict[str, Array] = {}
    names = [node.reads[1]]
    if weights is not None:
        names = [subject.fresh(f"{node.name}.weights")]
        constants[names[0]] = weights.astype(dtype)
    if bias.any():
        names.append(subject.fresh(f"{node.name}.bias"))
        channels = linear.channels(linear.outputs)
        constants[names[-1]] = np.broadcast_to(bias, (channels,)).astype(dtype)
        op = Gemm() if isinstance(op, MatMul) else op
    if isinstance(op, Gemm):
        op = replace(op, beta=1.0)
    if not all(np.isfinite(array.astype(FLOAT64)).all() for array in constants.values()):
        return None
    if grows_too_much(subject, node, sum(array.nbytes for array in constants.values())):
        return None
    return Patch((affine.node, node), (Node(node.name, op, (x, *names), outputs),), constants)
