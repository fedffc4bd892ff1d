"""Take scale and shift behind a convolution or matrix product into its weights."""

from __future__ import annotations

from mnnpy.converter.passes.affine import LINEAR, read_affine, read_linear, rebuilt
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.elementwise import Add, Div, Mul, Sub
from mnnpy.runtime.ops.normalization import BatchNormalization


def absorb_following_affine(graph: Graph) -> Graph:
    """BatchNormalization, and Add, Sub, Mul and Div with constants per output channel, behind
    Conv, ConvTranspose, Gemm and MatMul: into the weights and the bias.
    """
    return apply_rules(graph, _absorb)


def _absorb(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, BatchNormalization | Add | Sub | Mul | Div):
        return None
    before = next((p for name in node.reads if (p := subject.producer(name, LINEAR))), None)
    if before is None or not subject.private(before.outputs[0]) or len(node.outputs) != 1:
        return None
    linear = read_linear(subject, before)
    affine = None if linear is None else read_affine(subject, node, linear.rank)
    if linear is None or affine is None or affine.x != before.outputs[0]:
        return None
    sizes = (1, linear.channels(linear.outputs))
    if affine.scale.size not in sizes or affine.shift.size not in sizes:
        return None
    scaling = bool((affine.scale != 1).any())
    weights = linear.scaled(affine.scale, linear.outputs) if scaling else None
    return rebuilt(subject, linear, affine, weights, linear.bias * affine.scale + affine.shift)
