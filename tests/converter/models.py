"""ONNX text as graphs, for tests of the converter."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx
import onnx.parser

from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime.graph.graph import Graph


def graph_of(text: str, opset: int = 20) -> Graph:
    """Read ``(inputs) => (outputs) {...}``; inputs that begin with a capital become constants.

    Their content is random, positive where the name begins with P, and follows from the name.
    """
    header = f'<ir_version: 10, opset_import: ["" : {opset}]> g '
    model = onnx.parser.parse_model(header + text)
    weights = [value for value in model.graph.input if value.name[0].isupper()]
    for value in weights:
        model.graph.input.remove(value)
        model.graph.initializer.append(_random_tensor(value))
    return read_graph(model)


def _random_tensor(value: onnx.ValueInfoProto) -> onnx.TensorProto:
    rng = np.random.default_rng(zlib.crc32(value.name.encode()))
    tensor = value.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    content: np.ndarray[Any, Any] = np.asarray(rng.standard_normal(shape))
    if value.name.startswith("P"):
        content = np.abs(content) + 0.5
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return onnx.numpy_helper.from_array(content.astype(dtype), value.name)


def kinds(graph: Graph) -> list[str]:
    """Operators in order."""
    return [node.op.kind for node in graph.nodes]
