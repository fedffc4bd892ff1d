"""Importers of reductions, Einsum, softmax, running sums and selection."""

from __future__ import annotations

from mnnpy.converter.importers.base import (
    Importer,
    OnnxNode,
    Row,
    attributes_to_inputs,
    build,
    direct,
)
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import reduction as red
from mnnpy.runtime.ops.einsum import Einsum


def _trailing(op: type[Op]) -> Importer:
    """Before opset 13, the input was flattened to two axes at ``axis``, 1 unless given."""

    def importer(node: OnnxNode) -> Op:
        return build(op, node, axis=node.attributes.get("axis", 1), trailing=True)

    return importer


_REDUCTIONS: tuple[type[Op], ...] = (
    *(red.ReduceProd, red.ReduceMean, red.ReduceMax, red.ReduceMin, red.ReduceL1, red.ReduceL2),
    *(red.ReduceSumSquare, red.ReduceLogSum, red.ReduceLogSumExp),
)

ROWS: tuple[Row, ...] = (
    Row("ReduceSum", 1, attributes_to_inputs(red.ReduceSum, "axes")),
    Row("ReduceSum", 13, direct(red.ReduceSum)),
    *(Row(op.__name__, 1, attributes_to_inputs(op, "axes")) for op in _REDUCTIONS),
    *(Row(op.__name__, 18, direct(op)) for op in _REDUCTIONS),
    Row("ArgMax", 1, direct(red.ArgMax)),
    Row("ArgMin", 1, direct(red.ArgMin)),
    Row("Softmax", 1, _trailing(red.Softmax)),
    Row("Softmax", 13, direct(red.Softmax)),
    Row("LogSoftmax", 1, _trailing(red.LogSoftmax)),
    Row("LogSoftmax", 13, direct(red.LogSoftmax)),
    Row("Hardmax", 1, _trailing(red.Hardmax)),
    Row("Hardmax", 13, direct(red.Hardmax)),
    Row("CumSum", 11, direct(red.CumSum)),
    Row("CumProd", 26, direct(red.CumProd)),
    Row("TopK", 1, attributes_to_inputs(red.TopK, "k")),
    Row("TopK", 10, direct(red.TopK)),
    Row("Einsum", 12, direct(Einsum)),
)
