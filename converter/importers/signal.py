"""Importers of signal processing."""

from __future__ import annotations

import dataclasses

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
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.signal import (
    DFT,
    STFT,
    BlackmanWindow,
    HammingWindow,
    HannWindow,
    MelWeightMatrix,
)


def _dft_17(node: OnnxNode) -> Imported:
    rest = {name: value for name, value in node.attributes.items() if name != "axis"}
    op = build(DFT, dataclasses.replace(node, attributes=rest))
    axis = np.asarray(node.attributes.get("axis", 1), dtype=np.int64)
    return with_inputs(node, op, node.input(0), node.input(1), axis)


def _with_output_dtype(op_type: type[Op]) -> Importer:
    def importer(node: OnnxNode) -> Op:
        dtype = dtype_field(node.attributes.get("output_datatype", 1))
        return build(op_type, node, ("output_datatype",), output_dtype=dtype)

    return importer


ROWS: tuple[Row, ...] = (
    Row("DFT", 17, _dft_17),
    Row("DFT", 20, direct(DFT)),
    Row("STFT", 17, direct(STFT)),
    *(
        Row(op_type.__name__, 17, _with_output_dtype(op_type))
        for op_type in (HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix)
    ),
)
