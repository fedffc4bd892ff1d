"""The public face: what a Session takes, its configuration files, and given plans."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mnnpy
from mnnpy import Session, errors
from mnnpy.runtime.model_file import save_model
from mnnpy.runtime.plan_file import save_plan
from mnnpy.runtime.search_config import load_search_config
from mnnpy.runtime.session_config import SessionConfig, load_session_config

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def onnx_bytes() -> bytes:
    """relu(x @ w), its batch symbolic."""
    weights = np.arange(8, dtype=np.float32).reshape(4, 2) - 3
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
            helper.make_node("Relu", ["product"], ["y"], name="relu"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture
def folder(tmp_path: Path, onnx_bytes: bytes) -> Path:
    """A folder with the model in every form."""
    (tmp_path / "model.onnx").write_bytes(onnx_bytes)
    save_model(mnnpy.load_model(onnx_bytes), tmp_path / "model.mnnpy")
    (tmp_path / "onnx.bin").write_bytes(onnx_bytes)
    (tmp_path / "mnnpy.bin").write_bytes((tmp_path / "model.mnnpy").read_bytes())
    return tmp_path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "onnx path": lambda folder: folder / "model.onnx",
    "onnx path as text": lambda folder: str(folder / "model.onnx"),
    "onnx under another suffix": lambda folder: folder / "onnx.bin",
    "onnx bytes": lambda folder: (folder / "model.onnx").read_bytes(),
    "mnnpy path": lambda folder: folder / "model.mnnpy",
    "mnnpy under another suffix": lambda folder: folder / "mnnpy.bin",
    "mnnpy bytes": lambda folder: (folder / "model.mnnpy").read_bytes(),
    "graph": lambda folder: mnnpy.load_model(folder / "model.mnnpy"),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_session_takes(source: Callable[[Path], Any], folder: Path) -> None:
    session = Session(source(folder), backend="numpy")
    weights = np.arange(8, dtype=np.float32).reshape(4, 2) - 3
    np.testing.assert_allclose(session.run(X)["y"], np.maximum(X @ weights, 0), rtol=1e-6)
    copy = pickle.loads(pickle.dumps(session))
    assert type(copy) is Session
    np.testing.assert_array_equal(copy.run(X)["y"], session.run(X)["y"])


BAD_SOURCES: dict[str, tuple[bytes | None, type[Exception]]] = {
    "empty.onnx": (b"", errors.InvalidModelError),
    "text.onnx": (b"hello, I am a text", errors.InvalidModelError),
    "empty.mnnpy": (b"", errors.ModelFormatError),
    "text.mnnpy": (b"hello, I am a text", errors.ModelFormatError),
    "empty.bin": (b"", errors.InvalidModelError),
    "missing.bin": (None, errors.InvalidModelError),
    "missing.onnx": (None, errors.InvalidModelError),
    "missing.mnnpy": (None, errors.ModelFormatError),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_session_refuses(name: str, tmp_path: Path) -> None:
    content, expected = BAD_SOURCES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(expected):
        Session(tmp_path / name)


def test_public_names() -> None:
    assert set(mnnpy.__all__) <= set(dir(mnnpy))
    assert issubclass(mnnpy.errors.PlanError, mnnpy.errors.MnnpyError)
    assert callable(mnnpy.convert)
    with pytest.raises(AttributeError, match="sesion"):
        _ = mnnpy.sesion


@pytest.mark.parametrize("name", ["default", "server", "low_memory", "exact"])
def test_shipped_session_configurations(name: str, folder: Path) -> None:
    session = Session.from_config(name, folder / "model.onnx")
    assert session.run(X)["y"].shape == (3, 2)


def test_default_configuration_changes_nothing() -> None:
    assert load_session_config("default") == SessionConfig()


def test_configuration_names_the_model_and_options_win(folder: Path) -> None:
    path = folder / "session.yaml"
    path.write_text("model: model.mnnpy\nbackend: numpy\nthreads: 2\n")
    assert Session.from_config(path).threads == 2
    assert Session.from_config(path, threads=1).threads == 1
    path.write_text("backend: numpy\n")
    with pytest.raises(errors.ConfigError, match="model"):
        Session.from_config(path)


CONFIG_MISTAKES = {
    "modle: x": ["modle: unknown key, did you mean 'model'?", "known here: model, backend"],
    "backend: tpu": ["backend: must be one of auto, cuda, numba, numpy", "'tpu'"],
    "threads: two": ["threads: must be a whole number of at least 1, not 'two'"],
    "threads: 0": ["threads: must be a whole number of at least 1, not 0"],
    "threads: true": ["threads: must be a whole number"],
    "strict: maybe": ["strict: must be true or false, not 'maybe'"],
    "precision: low\nbackend: x": ["precision: must be one of", "backend: must be one of"],
    "constraints: 3": ["constraints: must be a mapping"],
    "constraints: {max_error: -1}": ["constraints.max_error: must be a number of at least 0"],
    "constraints: {allowed: {Conv: 3}}": ["constraints.allowed.Conv: must be a text or a list"],
    "constraints: {pinned: {c: {backend: numpy}}}": ["constraints.pinned.c.scheme: must be one of"],
    "constraints: {forbidden: {Conv: conv_fft}}": [
        "constraints.forbidden.Conv: must be among ",
        "conv_im2col, ",
        "not 'conv_fft'",
    ],
    "a: 2020-13-45": ["no valid YAML"],
    "constraints: {pined: {}}": ["constraints.pined: unknown key, did you mean 'pinned'?"],
    "[1, 2]": ["must hold a mapping"],
    "a: [": ["no valid YAML"],
}


@pytest.mark.parametrize("text", CONFIG_MISTAKES)
def test_configuration_mistakes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigError) as caught:
        load_session_config(path)
    assert str(path) in str(caught.value)
    for fragment in CONFIG_MISTAKES[text]:
        assert fragment in str(caught.value)


def test_unknown_configuration_lists_the_shipped_ones() -> None:
    with pytest.raises(errors.ConfigError, match="default, exact, low_memory, server"):
        load_session_config("severe")


def test_configuration_reads_constraints(tmp_path: Path) -> None:
    path = tmp_path / "session.yaml"
    path.write_text(
        "constraints: {forbidden: {Conv: conv_im2col}, max_error: 1e-5, fuse: false,\n"
        "  pinned: {c: {backend: numpy, scheme: conv_winograd, config: {m: 4}}}}"
    )
    constraints = load_session_config(path).constraints
    assert constraints.forbidden == {"Conv": frozenset({"conv_im2col"})}
    assert constraints.pinned == {"c": ("numpy", "conv_winograd", (("m", 4),))}
    assert constraints.max_error == 1e-5
    assert not constraints.fuse


def test_search_configuration(tmp_path: Path) -> None:
    assert load_search_config("digits").shapes == {"image": (1, 1, 8, 8)}
    assert load_search_config("mobilenet_v2").threads == 1
    path = tmp_path / "search.yaml"
    path.write_text("shapes: {x: [1, a]}\nbackends: [tpu]\nobjective: beauty\nbudjet: 3\n")
    with pytest.raises(errors.ConfigError) as caught:
        load_search_config(path)
    for fragment in ("shapes.x", "backends", "objective", "did you mean 'budget'?"):
        assert fragment in str(caught.value)


def test_given_plan_decides(folder: Path) -> None:
    model, path = folder / "model.onnx", folder / "best.plan.json"
    default = Session(model, backend="numpy").plan([3, 4])
    pinned = {default.steps[0].node.name: ("numpy", "reference", ())}
    constraints = mnnpy.runtime.preinference.constraints.Constraints(pinned=pinned)
    wanted = Session(model, backend="numpy", constraints=constraints).plan([3, 4])
    save_plan(wanted, path)
    for plan in (path, str(path), wanted):
        made = Session(model, backend="numpy", plan=plan).plan([3, 4])
        assert made.steps == wanted.steps
        assert made.steps != default.steps
        assert made.seconds == wanted.seconds
        assert made.explain(0) == wanted.explain(0)


def test_given_plan_is_refused_where_it_does_not_fit(folder: Path, onnx_bytes: bytes) -> None:
    model, path = folder / "model.onnx", folder / "best.plan.json"
    save_plan(Session(model, backend="numpy").plan([3, 4]), path)
    with pytest.raises(errors.PlanError, match=r"float32\(3, 4\), not float32\(5, 4\)"):
        Session(model, backend="numpy", plan=path).run(np.zeros((5, 4), np.float32))
    changed = onnx_bytes.replace(b"batch", b"count")
    with pytest.raises(errors.PlanError, match="made for the model"):
        Session(changed, backend="numpy", plan=path)
    path.write_text("{}")
    with pytest.raises(errors.PlanError):
        Session(model, backend="numpy", plan=path)
