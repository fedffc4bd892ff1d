"""Importers of quantisation and of products of quantised numbers."""

from __future__ import annotations

from typing import Any

from mnnpy.converter.importers.base import Importer, OnnxNode, Row, build, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.quantization import DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear
from mnnpy.runtime.ops.quantized_products import (
    ConvInteger,
    MatMulInteger,
    QLinearConv,
    QLinearMatMul,
)


def _with_dtypes(op_type: type[Op], *names: str) -> Importer:
    """Importer whose attributes ``names`` are element types, 0 meaning none."""

    def importer(node: OnnxNode) -> Op:
        given: dict[str, Any] = {name: dtype_field(node.attributes.get(name)) for name in names}
        return build(op_type, node, **given)

    return importer


ROWS: tuple[Row, ...] = (
    Row("QuantizeLinear", 10, _with_dtypes(QuantizeLinear, "output_dtype", "precision")),
    Row("DequantizeLinear", 10, _with_dtypes(DequantizeLinear, "output_dtype")),
    Row("DynamicQuantizeLinear", 11, direct(DynamicQuantizeLinear)),
    Row("MatMulInteger", 10, direct(MatMulInteger)),
    Row("QLinearMatMul", 10, direct(QLinearMatMul)),
    Row("ConvInteger", 10, direct(ConvInteger, "kernel_shape")),
    Row("QLinearConv", 10, direct(QLinearConv, "kernel_shape")),
)
