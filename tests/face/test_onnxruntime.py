"""ONNX Runtime's face: the same calls through it and through ONNX Runtime give the same."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mnnpy.compat import onnxruntime as face
from mnnpy.compat.onnxruntime import providers
from mnnpy.runtime import errors
from tests.face.onnxruntime_calls import CALLS, MODEL, X, opened

FLOAT = TensorProto.FLOAT


def outcome(call: Callable[[Any], Any], module: Any) -> tuple[str, Any, bool]:
    """What a call gives: ("gives", result) or ("raises", name of the class); whether it warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = "gives", plain(call(module))
        except Exception as error:
            found = "raises", type(error).__name__
    return *found, bool(caught)


def plain(result: Any) -> Any:
    """A result without the classes of the module that it came from."""
    if isinstance(result, np.ndarray):
        return result.dtype.name, result.shape, np.round(result.astype(float), 4).tolist()
    if isinstance(result, list | tuple):
        return [plain(entry) for entry in result]
    if hasattr(result, "shape") and hasattr(result, "name"):
        return result.name, result.type, list(result.shape)
    if hasattr(result, "device_name"):
        return result.device_name(), result.data_type(), plain(result.numpy())
    return result


@pytest.mark.parametrize("name", CALLS)
def test_same_as_onnxruntime(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("onnxruntime", reason="onnxruntime is in the extra 'dev'")
    theirs.set_default_logger_severity(4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(MODEL)
    assert outcome(CALLS[name], face) == outcome(CALLS[name], theirs)


@pytest.mark.parametrize(
    "name", ["DeviceReset", "Fail", "InvalidArgument", "InvalidGraph", "NotImplemented"]
)
def test_errors_are_where_programs_look_for_them(name: str) -> None:
    inner = getattr(face.capi.onnxruntime_pybind11_state, name)
    assert inner is getattr(face.capi._pybind_state, name)
    assert inner.__name__ == name
    assert issubclass(inner, errors.MnnpyError)


def test_unknown_operators_and_libraries_are_not_implemented() -> None:
    node = helper.make_node("Foo", ["x"], ["h"], domain="bar")
    graph = helper.make_graph(
        [node, helper.make_node("Neg", ["h"], ["y"])],
        "unknown",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bar", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    missing = face.capi.onnxruntime_pybind11_state.NotImplemented
    with pytest.raises(missing, match=r"bar\.Foo"):
        face.InferenceSession(model.SerializeToString())
    with pytest.raises(missing, match="OperatorLibrary"):
        face.SessionOptions().register_custom_ops_library("library.so")


def test_profiling_writes_a_trace(tmp_path: Path) -> None:
    session = opened(face, enable_profiling=True, profile_file_prefix=str(tmp_path / "trace"))
    session.run(None, {"x": X})
    assert session.get_profiling_start_time_ns() > 0
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds = [event["args"].get("op_name") for event in events if event["cat"] == "Node"]
    assert "Neg" in kinds
    assert session.end_profiling() == ""


def test_optimized_model_can_be_opened_again(tmp_path: Path) -> None:
    path = str(tmp_path / "optimized.onnx")
    expected = opened(face, optimized_model_filepath=path).run(None, {"x": X})
    again = face.InferenceSession(path, face_options())
    np.testing.assert_array_equal(again.run(None, {"x": X}), expected)
    assert [arg.name for arg in again.get_outputs()] == ["y", "z"]


@pytest.mark.parametrize("level", face.GraphOptimizationLevel)
def test_every_optimization_level_gives_the_same(level: face.GraphOptimizationLevel) -> None:
    session = opened(face, graph_optimization_level=level)
    np.testing.assert_allclose(session.run(["y"], {"x": X})[0], 5 * np.ones((2, 3)), rtol=1e-6)


def test_initializers_can_be_given() -> None:
    options = face_options()
    options.add_initializer("w", face.OrtValue.ortvalue_from_numpy(np.zeros((4, 3), np.float32)))
    session = face.InferenceSession(MODEL, options)
    np.testing.assert_array_equal(session.run(["y"], {"x": X})[0], np.ones((2, 3)))
    options.add_initializer("nowhere", face.OrtValue.ortvalue_from_numpy(X))
    with pytest.raises(face.capi.onnxruntime_pybind11_state.InvalidArgument, match="nowhere"):
        face.InferenceSession(MODEL, options)


def test_providers_follow_the_backends_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "why_unusable", lambda name: None)
    assert face.get_available_providers() == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert face.get_device() == "GPU"
    asked: list[Any] = ["TensorrtExecutionProvider", ("CUDAExecutionProvider", {"device_id": 0})]
    with pytest.warns(UserWarning, match="given twice"):
        chosen = providers.choose_providers(asked, None)
    assert chosen.names == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert chosen.backend == "cuda"
    assert providers.choose_providers(None, None).names == chosen.names
    assert providers.choose_providers(["CPUExecutionProvider"], None).backend == "numba"
    monkeypatch.setattr(providers, "why_unusable", lambda name: "absent")
    assert face.get_available_providers() == ["CPUExecutionProvider"]
    assert providers.choose_providers(None, None).backend == "numpy"


def test_asynchronous_runs_call_back() -> None:
    done, found = threading.Event(), []

    def callback(results: Sequence[Any], data: Any, error: str) -> None:
        found.append((len(results), data, error))
        done.set()

    opened(face).run_async(["y"], {"x": X}, callback, "data")
    assert done.wait(60)
    assert found == [(1, "data", "")]


def test_asynchronous_errors_arrive_as_text() -> None:
    done, found = threading.Event(), []

    def callback(results: Sequence[Any], data: Any, error: str) -> None:
        found.append((results, error))
        done.set()

    opened(face).run_async(["nope"], {"x": X}, callback, None)
    assert done.wait(60)
    ((results, error),) = found
    assert results == []
    assert "nope" in error


def test_sequences_and_texts_go_through() -> None:
    value = helper.make_tensor_value_info
    sequence = helper.make_tensor_sequence_value_info
    graph = helper.make_graph(
        [
            helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
            helper.make_node("Identity", ["text"], ["same"]),
        ],
        "objects",
        [value("x", FLOAT, ["n", 2]), value("text", TensorProto.STRING, ["k"])],
        [sequence("parts", FLOAT, None), value("same", TensorProto.STRING, ["k"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = face.InferenceSession(model.SerializeToString(), face_options())
    assert [arg.type for arg in session.get_outputs()] == ["seq(tensor(float))", "tensor(string)"]
    parts, same = session.run(None, {"x": np.ones((3, 2), np.float32), "text": np.array([b"ab"])})
    assert [part.shape for part in parts] == [(1, 2)] * 3
    assert same.tolist() == ["ab"]
    (value_of_parts,) = session.run_with_ort_values(
        ["parts"], {"x": face.OrtValue(np.ones((1, 2), np.float32)), "text": face.OrtValue(same)}
    )
    assert value_of_parts.data_type() == "seq(tensor(float))"
    assert value_of_parts.is_tensor_sequence()
    with pytest.raises(RuntimeError, match="not a tensor"):
        value_of_parts.numpy()


def test_metadata_and_defaults_of_old_models() -> None:
    """Before IR 4 an initialiser was always an input too, and no feed could replace it."""
    model = onnx.load_from_string(MODEL)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
    session = face.InferenceSession(model.SerializeToString(), face_options())
    assert [arg.name for arg in session.get_inputs()] == ["x"]
    assert session.get_overridable_initializers() == []


def face_options() -> face.SessionOptions:
    options = face.SessionOptions()
    options.add_session_config_entry("mnnpy.backend", "numpy")
    return options
