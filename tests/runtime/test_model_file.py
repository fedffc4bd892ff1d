"""Model files: what goes in comes out, and what is broken is refused."""

from __future__ import annotations

import os
import stat
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime import VERSION
from mnnpy.runtime.errors import ModelFormatError, ShapeError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import DTYPES, FLOAT32, TensorType
from mnnpy.runtime.model_file import load_model, save_model
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.activation import LeakyRelu, Relu
from mnnpy.runtime.ops.fused import Copy
from tests.runtime import malformed_models

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"
SHAPES = ((), (0,), (1,), (16,), (3, 5), (0, 4), (2, 1, 7))


def constant_graph(constants: dict[str, Any]) -> Graph:
    inputs = {"x": TensorType(FLOAT32, (1,))}
    return Graph((Node("r", Relu(), ("x",), ("y",)),), inputs, ("y",), constants)


def filled(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    if dtype.kind == "O":
        words = np.array([*("é", "", "日本", "\udc80", 'a"b\n') * count, ""], object)[:count]
        return words.reshape(shape)
    return np.arange(count).astype(dtype).reshape(shape)


def base_of(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def assert_same(a: Any, b: Any) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype == object:
        assert a.tolist() == b.tolist()
    else:
        assert a.tobytes() == b.tobytes()


@pytest.fixture(scope="module")
def digits() -> Graph:
    return read_graph(onnx.load(DIGITS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.mnnpy"


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_survive(dtype: str, path: Path) -> None:
    constants = {str(shape): filled(DTYPES[dtype], shape) for shape in SHAPES}
    save_model(constant_graph(constants), path)
    loaded = load_model(path).constants
    assert list(loaded) == list(constants)
    for name, array in constants.items():
        assert_same(loaded[name], array)
        assert not loaded[name].flags.writeable


def test_order_strides_and_byte_order_do_not_matter(path: Path) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    constants = {"f": np.asfortranarray(array), "s": array[::2, ::-1], "b": array.astype(">f4")}
    save_model(constant_graph(constants), path)
    for name, loaded in load_model(path).constants.items():
        assert loaded.dtype.isnative
        np.testing.assert_array_equal(loaded, constants[name])


def test_digits_survives(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    for loaded in (load_model(path), load_model(str(path)), load_model(path.read_bytes())):
        assert loaded == digits
        assert loaded.fingerprint == digits.fingerprint
        assert loaded.nodes == digits.nodes
        assert dict(loaded.inputs) == dict(digits.inputs)
        assert (loaded.name, loaded.metadata) == (digits.name, digits.metadata)
        for name, array in digits.constants.items():
            assert_same(loaded.constants[name], array)


def test_subgraphs_survive_with_constants_of_one_name(path: Path) -> None:
    def branch(value: float) -> Graph:
        return Graph((), {}, ("c",), {"c": np.full(3, value, np.float32)}, f"branch{value}")

    op = OPERATORS["If"](branch(1), branch(2))  # type: ignore[call-arg]
    inputs = {"condition": TensorType(DTYPES["bool"], ())}
    constants = {"c": np.zeros(3, np.float32), "__metadata__": np.ones(1, np.float32)}
    graph = Graph((Node("if", op, ("condition",), ("y",)),), inputs, ("y",), constants)
    save_model(graph, path)
    assert load_model(path) == graph


def test_nan_attributes_survive(path: Path) -> None:
    nodes = (Node("leaky", LeakyRelu(float("nan")), ("x",), ("y",)),)
    graph = Graph(nodes, {"x": TensorType(FLOAT32, (1,))}, ("y",))
    save_model(graph, path)
    assert load_model(path) == graph


def test_constants_are_views_of_one_read_only_map(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    bases = {id(base_of(array)): base_of(array) for array in load_model(path).constants.values()}
    (base,) = bases.values()
    assert isinstance(base, np.memmap)
    assert base.mode == "r"
    for array in load_model(path).constants.values():
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_whole_cache_lines_lie_on_cache_lines(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    for name, array in load_model(path).constants.items():
        if array.nbytes % 64 == 0:
            assert array.ctypes.data % 64 == 0, name


def test_safetensors_reads_the_container(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert (metadata["format"], metadata["version"]) == ("mnnpy", "1")
    assert metadata["producer"] == f"mnnpy {VERSION}"
    assert metadata["opset"] == digits.metadata["opset"]
    assert tensors.keys() == digits.constants.keys()
    for name, array in digits.constants.items():
        assert_same(tensors[name], array)


def test_equal_graphs_give_equal_files(digits: Graph, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(read_graph(onnx.load(DIGITS)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (LeakyRelu(np.float32(1)), "has no form in a file"),  # type: ignore[arg-type]
        (LeakyRelu("steep"), "expected float, found 'steep'"),  # type: ignore[arg-type]
        (Copy(), "no operator 'mnnpy.Copy'"),
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_not_written(op: Any, message: str, path: Path) -> None:
    graph = Graph((Node("n", op, ("x",), ("y",)),), {"x": TensorType(FLOAT32, (1,))}, ("y",))
    with pytest.raises(ModelFormatError, match=message):
        save_model(graph, path)
    assert not list(path.parent.iterdir())


def test_foreign_element_types_are_not_written(path: Path) -> None:
    with pytest.raises(ModelFormatError, match="datetime64"):
        save_model(constant_graph({"c": np.zeros(1, "datetime64[s]")}), path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    digits: Graph, path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    save_model(constant_graph({}), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((KeyboardInterrupt, ModelFormatError)):
        save_model(digits, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_loaded_file_can_be_replaced(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    loaded = load_model(path)
    save_model(replace(loaded, name="again"), path)
    assert load_model(path) == loaded == digits


def test_a_folder_that_is_not_there(digits: Graph, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot write"):
        save_model(digits, tmp_path / "none" / "model.mnnpy")


def unreadable_paths(folder: Path) -> dict[str, Any]:
    (folder / "empty").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "missing": folder / "missing",
        "folder": folder,
        "empty": folder / "empty",
        "pipe": folder / "pipe",
        "loop": folder / "loop",
        "device": "/dev/zero",
        "nul": "a\0b",
        "long": "x" * 5000,
        "no name": "",
        "onnx": DIGITS,
    }


@pytest.mark.parametrize(
    "kind",
    ["missing", "folder", "empty", "pipe", "loop", "device", "nul", "long", "no name", "onnx"],
)
def test_hostile_paths_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="is no valid model file"):
        load_model(unreadable_paths(tmp_path)[kind])


CASES = malformed_models.all_cases()


def test_there_are_two_hundred_malformed_files() -> None:
    assert len({label for label, _ in CASES}) == len(CASES) >= 200


@pytest.mark.parametrize(("label", "content"), CASES, ids=[label for label, _ in CASES])
def test_malformed_files_are_refused_quickly(label: str, content: bytes, path: Path) -> None:
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(ModelFormatError) as refusal:
        load_model(path)
    assert time.process_time() - started < 2
    assert len(str(refusal.value)) < 1000
    with pytest.raises(ModelFormatError):
        load_model(content)


@pytest.mark.parametrize(("label", "content"), CASES, ids=[label for label, _ in CASES])
def test_malformed_files_take_little_memory(label: str, content: bytes, path: Path) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError):
            load_model(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.parametrize("case", malformed_models.weight_flips(), ids=lambda case: case[0])
def test_flipped_weights_load(case: tuple[str, bytes], path: Path) -> None:
    path.write_bytes(case[1])
    assert load_model(path).nodes == malformed_models.small_graph().nodes


@pytest.mark.slow
def test_every_flipped_bit_of_the_header_is_found() -> None:
    content = malformed_models.valid_file()
    _, data = malformed_models.split(content)
    for position in range(len(content) - len(data)):
        for bit in range(8):
            with pytest.raises(ModelFormatError):
                load_model(malformed_models.flip(content, position, bit))


def test_a_sparse_file_of_a_terabyte_is_refused(path: Path) -> None:
    with path.open("wb") as file:
        file.write(malformed_models.valid_file())
        file.truncate(2**40)
    with pytest.raises(ModelFormatError, match="the file holds"):
        load_model(path)


def test_wrong_attributes_that_fit_their_types_are_found_by_inference(path: Path) -> None:
    change = malformed_models.set_at("nodes", 0, "op", "attributes", "group", to=2)
    path.write_bytes(malformed_models.with_graph(change))
    with pytest.raises(ShapeError, match="Conv node 'conv'"):
        infer_values(load_model(path))


def test_new_files_have_ordinary_permissions(digits: Graph, path: Path) -> None:
    save_model(digits, path)
    path.with_suffix(".other").touch()
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert len(modes) == 1
