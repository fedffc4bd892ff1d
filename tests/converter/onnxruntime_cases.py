"""One-node models, run by ONNX Runtime and by mnnpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mnnpy import Session

Array = np.ndarray[Any, Any]
DOMAINS = {"": 21, "com.microsoft": 1, "ai.onnx.ml": 5}


@dataclass(frozen=True)
class Case:
    """An operator's inputs (None: left out), attributes and outputs ("": not asked for).

    ``constants`` are the places of inputs that are initialisers, ``atol`` is the error allowed,
    ``steps`` that of integers.
    """

    op: str
    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    constants: tuple[int, ...] = ()
    atol: float = 1e-5
    steps: int = 0
    domain: str = "com.microsoft"
    opset: int | None = None

    @property
    def feeds(self) -> dict[str, Array]:
        return {
            f"x{place}": array
            for place, array in enumerate(self.inputs)
            if array is not None and place not in self.constants
        }

    @property
    def model(self) -> bytes:
        names = [f"x{place}" if x is not None else "" for place, x in enumerate(self.inputs)]
        node = helper.make_node(
            self.op, names, self.outputs, domain=self.domain, **dict(self.attributes)
        )
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in self.feeds.items()
        ]
        constants = [
            numpy_helper.from_array(array, f"x{place}")
            for place, array in enumerate(self.inputs)
            if array is not None and place in self.constants
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs if name]
        graph = helper.make_graph([node], self.op, inputs, outputs, constants)
        versions = {**DOMAINS, self.domain: self.opset or DOMAINS[self.domain]}
        opsets = [helper.make_opsetid(*item) for item in versions.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return model.SerializeToString()


def run_onnxruntime(model: bytes | str, feeds: Mapping[str, Array]) -> list[Any]:
    """Outputs in order; skips the test where ONNX Runtime is not installed."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'dev'")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(None, dict(feeds))
    return outputs


def check_case(case: Case, backend: str) -> None:
    """The same outputs, with the same types, from both."""
    wanted = run_onnxruntime(case.model, case.feeds)
    found = Session(case.model, backend=backend).run(case.feeds)
    for name, a, b in zip(filter(None, case.outputs), found.values(), wanted, strict=True):
        compare(a, b, case.atol, case.steps, name)


def compare(found: Array, wanted: Array, atol: float, steps: int, name: str = "") -> None:
    assert found.dtype == wanted.dtype, name
    assert found.shape == wanted.shape, name
    if wanted.dtype.kind in "iu":
        np.testing.assert_allclose(found.astype(np.int64), wanted, rtol=0, atol=steps, err_msg=name)
    elif wanted.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=atol, atol=atol, err_msg=name)
    else:
        np.testing.assert_array_equal(found, wanted, err_msg=name)
