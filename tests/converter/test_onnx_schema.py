"""Nodes that break ONNX's rules for their operator are refused when they are read."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime.errors import InvalidModelError

BROKEN: dict[str, tuple[str, list[str], int, dict[str, Any], str]] = {
    # operator, inputs, number of outputs, attributes -> what is said
    "no element type": ("Cast", ["x"], 1, {}, "attribute 'to' is missing"),
    "no bits' type": ("BitCast", ["x"], 1, {}, "attribute 'to' is missing"),
    "no equation": ("Einsum", ["x"], 1, {}, "attribute 'equation' is missing"),
    "number for numbers": ("Transpose", ["x"], 1, {"perm": 1}, "'perm' is of type INT, it takes"),
    "text for a number": ("Softmax", ["x"], 1, {"axis": "1"}, "'axis' is of type STRING"),
    "float for an int": ("Softmax", ["x"], 1, {"axis": 1.5}, "'axis' is of type FLOAT"),
    "too few inputs": ("MatMul", ["x"], 1, {}, "1 inputs, it takes 2"),
    "too many inputs": ("Relu", ["x", "x"], 1, {}, "2 inputs, it takes 1"),
    "none of many": ("Concat", [], 1, {"axis": 0}, "0 inputs, it takes at least 1"),
    "needed input left out": ("MatMul", ["", "x"], 1, {}, "input 0 is left out"),
    "too many outputs": ("Relu", ["x"], 2, {}, "2 outputs, it takes 1"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_nodes_are_refused(case: str) -> None:
    operator, inputs, outputs, attributes, said = BROKEN[case]
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(operator, inputs, names, "here", **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", TensorProto.FLOAT, [2, 2])],
        [value("y0", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)])
    with pytest.raises(InvalidModelError) as caught:
        read_graph(model)
    text = str(caught.value)
    assert f"{operator} node 'here'" in text
    assert said in text
