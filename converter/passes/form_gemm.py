"""Make Gemm of a matrix product and the bias behind it."""

from __future__ import annotations

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.matmul import Gemm, MatMul


def form_gemm(graph: Graph) -> Graph:
    """MatMul of a matrix and constant weights, plus a constant row: Gemm."""
    return apply_rules(graph, _form)


def _form(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, Add):
        return None
    for product, bias in (node.reads, node.reads[::-1]):
        matmul = subject.producer(product, MatMul)
        if matmul is None or bias not in subject.constants or not subject.private(product):
            continue
        a, weights = subject.tensor(matmul.inputs[0]), subject.constant(matmul.inputs[1])
        if a is None or weights is None or a.rank != 2 or weights.ndim != 2:
            continue
        if _is_row(subject.constants[bias].shape, weights.shape[1]):
            new = Node(matmul.name, Gemm(), (*matmul.inputs, bias), node.outputs)
            return Patch((matmul, node), (new,))
    return None


def _is_row(shape: tuple[int, ...], columns: int) -> bool:
    return shape in ((), (1,), (columns,), (1, 1), (1, columns))
