"""Opening ONNX files: honest ones work, broken and hostile ones are refused in one line."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mnnpy.converter.onnx_file import load_onnx
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.converter.onnx_tensors import sparse_array, stored_nbytes, tensor_array
from mnnpy.converter.onnx_types import dtype_of
from mnnpy.runtime.errors import InvalidModelError

WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def add_model(weights: TensorProto, **changes: int) -> onnx.ModelProto:
    """y = x + w as a model of opset 21."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"], "add")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [weights],
    )
    opset = helper.make_opsetid("", changes.pop("opset", 21))
    return helper.make_model(graph, opset_imports=[opset], ir_version=changes.pop("ir", 10))


def inline(name: str = "w") -> TensorProto:
    return onnx.numpy_helper.from_array(WEIGHTS, name)


def external(
    location: str | None = "w.bin", dims: tuple[int, ...] = (2, 3), **entries: object
) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    if location is not None:
        entries["location"] = location
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def saved(folder: Path, weights: TensorProto) -> Path:
    """A model file in a folder of its own, beside a secret that it must not reach."""
    (folder / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "model").mkdir()
    path = folder / "model" / "m.onnx"
    path.write_bytes(add_model(weights).SerializeToString())
    return path


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- the file itself


def test_path_string_and_bytes_give_the_same_model(tmp_path: Path) -> None:
    path = saved(tmp_path, inline())
    assert load_onnx(path) == load_onnx(str(path)) == load_onnx(path.read_bytes())


def truncated() -> bytes:
    return add_model(inline()).SerializeToString()[:-7]


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    model = add_model(inline())
    change(model)
    return model.SerializeToString()


def function_of_opset(version: int) -> Callable[[onnx.ModelProto], object]:
    opset = helper.make_opsetid("", version)
    return lambda m: m.functions.append(helper.make_function("own", "F", [], [], [], [opset]))


NOT_MODELS = {
    "nothing": (b"", "empty"),
    "text": (b"hello world", "not an ONNX model"),
    "zip": (b"PK\x03\x04 not a model", "not an ONNX model"),
    "truncated": (truncated(), "truncated"),
    "no graph": (b"\x08\x0a", "holds no graph"),
    "IR of the future": (add_model(inline(), ir=10_000).SerializeToString(), "IR version 10000"),
    "no IR version": (changed(lambda m: m.ClearField("ir_version")), "IR version 0"),
    "opset of the future": (add_model(inline(), opset=9999).SerializeToString(), "opset 9999"),
    "opset zero": (add_model(inline(), opset=0).SerializeToString(), "opset 0"),
    "opset below zero": (add_model(inline(), opset=-3).SerializeToString(), "opset -3"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "no opset"),
    "ml opset of the future": (
        changed(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))),
        "opset 99 of domain 'ai.onnx.ml'",
    ),
    "function of the future": (changed(function_of_opset(9999)), "opset 9999"),
}


@pytest.mark.parametrize(("content", "reason"), NOT_MODELS.values(), ids=NOT_MODELS)
@pytest.mark.parametrize("by_path", [True, False], ids=["path", "bytes"])
def test_what_is_no_model_is_refused(
    content: bytes, reason: str, by_path: bool, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=reason) as caught:
        load_onnx(path if by_path else content)
    assert ("m.onnx" in one_line(caught.value)) == by_path


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.bind(str(tmp_path / "socket"))
        for name, reason in {
            ".": "is a directory",
            "missing.onnx": "No such file",
            "loop": "symbolic link",
            "socket": "not a regular file",
            "nul\0": "null",
            "x" * 5000: "too long",
        }.items():
            with pytest.raises(InvalidModelError, match=reason) as caught:
                load_onnx(tmp_path / name)
            one_line(caught.value)


def test_files_beyond_2_gib_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InvalidModelError, match="external data"):
        load_onnx(path)


def test_unknown_domains_may_have_any_version() -> None:
    load_onnx(changed(lambda m: m.opset_import.append(helper.make_opsetid("own", 12345))))


def test_old_opsets_are_read_with_a_remark(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mnnpy"):
        load_onnx(add_model(inline(), opset=6).SerializeToString())
    assert "opset 6 is older" in caplog.text


# ---------------------------------------------------------------- external data


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "sub/w.bin", "sub/..w.bin", "..w/w.bin"])
@pytest.mark.parametrize("offset", [None, 0, 5])
@pytest.mark.parametrize("length", [None, 24])
def test_external_data_is_read(
    location: str, offset: int | None, length: int | None, tmp_path: Path
) -> None:
    entries = {"offset": offset, "length": length, "checksum": "ignored"}
    given = {key: value for key, value in entries.items() if value is not None}
    path = saved(tmp_path, external(location, **given))
    target = path.parent / location
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"#" * (offset or 0) + WEIGHTS.tobytes() + b"behind")
    model = load_onnx(path)
    (tensor,) = model.graph.initializer
    assert not tensor.external_data
    np.testing.assert_array_equal(read_graph(model).constants["w"], WEIGHTS)


def test_files_shared_by_tensors_and_links_inside_the_folder_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path, external("link.bin", offset=0))
    (path.parent / "w.bin").write_bytes(WEIGHTS.tobytes() * 2)
    (path.parent / "link.bin").symlink_to("w.bin")
    second = external("link.bin", offset=24)
    second.name = "other"
    model = add_model(external("link.bin"))
    model.graph.initializer.append(second)
    model.graph.node.append(nested_constant(external("w.bin", offset=24)))
    path.write_bytes(model.SerializeToString())
    graph = load_onnx(path).graph
    for tensor in (*graph.initializer, graph.node[1].attribute[0].g.node[0].attribute[0].t):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), WEIGHTS)


def nested_constant(tensor: TensorProto) -> onnx.NodeProto:
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    body = helper.make_graph([constant], "body", [], [helper.make_empty_tensor_value_info("c")])
    return helper.make_node("If", ["cond"], ["z"], then_branch=body, else_branch=body)


REFUSED: dict[str, tuple[TensorProto, str]] = {
    "no location": (external(None), "not a file name"),
    "empty location": (external(""), "not a file name"),
    "folder": (external("."), "not a regular file|directory"),
    "missing": (external("nowhere.bin"), "No such file"),
    "parent": (external("../secret.bin"), "below the model's folder"),
    "parent after a detour": (external("sub/../../secret.bin"), "below the model's folder"),
    "parent that returns": (external("../model/w.bin"), "below the model's folder"),
    "absolute": (external("/etc/passwd"), "below the model's folder"),
    "windows parent": (external("..\\secret.bin"), "below the model's folder"),
    "windows drive": (external("C:\\secret.bin"), "below the model's folder"),
    "windows share": (external("\\\\host\\share"), "below the model's folder"),
    "link to a file": (external("link.bin"), "leads out"),
    "link to a folder": (external("linked/secret.bin"), "leads out"),
    "link to itself": (external("loop.bin"), "cannot be read"),
    "hard link": (external("hard.bin"), "hard links"),
    "device": (external("pipe.bin"), "not a regular file"),
    "offset beyond the end": (external(offset=25), "do not fit"),
    "huge offset": (external(offset=2**63), "do not fit"),
    "overflowing offset": (external(offset=10**30), "not a size"),
    "negative offset": (external(offset=-1), "not a size"),
    "offset in words": (external(offset="zero"), "not a size"),
    "fractional length": (external(length="24.0"), "not a size"),
    "length too small": (external(length=20), "takes 24 bytes"),
    "length too large": (external(length=28), "takes 24 bytes"),
    "more dimensions than data": (external(dims=(2, 4)), "do not fit"),
    "huge dimensions": (external(dims=(2**40, 2**20)), "do not fit"),
    "overflowing dimensions": (external(dims=(2**62, 2**62, 4)), "do not fit"),
    "negative dimensions": (external(dims=(-2, -3)), "dimensions"),
}


@pytest.mark.parametrize(("weights", "reason"), REFUSED.values(), ids=REFUSED)
def test_external_data_outside_or_of_another_size_is_refused(
    weights: TensorProto, reason: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, weights)
    folder = path.parent
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "sub").mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.bin").symlink_to("loop.bin")
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    os.mkfifo(folder / "pipe.bin")
    with pytest.raises(InvalidModelError, match=reason) as caught:
        load_onnx(path)
    assert "'w'" in one_line(caught.value)


def test_strings_cannot_be_external(tmp_path: Path) -> None:
    weights = external()
    weights.data_type = TensorProto.STRING
    with pytest.raises(InvalidModelError, match="strings"):
        load_onnx(saved(tmp_path, weights))


def test_bytes_cannot_have_external_data() -> None:
    model = add_model(external())
    with pytest.raises(InvalidModelError, match=r"1 tensors .*'w'.*as a path"):
        load_onnx(model.SerializeToString())
    with pytest.raises(InvalidModelError, match="another file"):
        read_graph(model)


# ---------------------------------------------------------------- tensors in the model


def raw(dims: tuple[int, ...], nbytes: int, kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(name="w", data_type=kind, dims=dims, raw_data=b"\0" * nbytes)


WRONG_TENSORS: dict[str, TensorProto] = {
    "too little raw data": raw((2, 3), 23),
    "too much raw data": raw((2, 3), 25),
    "huge dimensions": raw((2**40, 2**23), 8),
    "overflow to the right size": raw((2**62, 4, 2), 0),
    "negative dimension": raw((-6,), 24),
    "two negative dimensions": raw((-2, -3), 24),
    "half a byte too few": raw((5,), 2, TensorProto.INT4),
    "unknown element type": raw((1,), 1, 250),
    "no element type": raw((1,), 1, TensorProto.UNDEFINED),
    "raw strings": raw((1,), 1, TensorProto.STRING),
    "too few floats": TensorProto(name="w", data_type=1, dims=[3], float_data=[1, 2]),
    "too few complex": TensorProto(name="w", data_type=14, dims=[2], float_data=[1, 2]),
    "too few strings": TensorProto(name="w", data_type=8, dims=[2], string_data=[b"a"]),
    "broken string": TensorProto(name="w", data_type=8, dims=[1], string_data=[b"\xff"]),
    "huge and empty": TensorProto(name="w", data_type=1, dims=[2**50]),
    "segment": TensorProto(name="w", data_type=1, segment=TensorProto.Segment(begin=0, end=1)),
}


@pytest.mark.parametrize("tensor", WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_tensors_of_another_size_than_they_say_are_refused(tensor: TensorProto) -> None:
    with pytest.raises(InvalidModelError, match=r"'w'|element type") as caught:
        read_graph(add_model(tensor))
    one_line(caught.value)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("kind", sorted(set(TensorProto.DataType.values()) - {0}))
def test_tensors_of_every_type_are_read(kind: int, size: int) -> None:
    if kind == TensorProto.STRING:
        array = np.array(["ä" * i for i in range(size)], dtype=object)
    else:
        first = kind == TensorProto.FLOAT8E8M0  # has no zero
        array = (np.arange(size) % 4 + first).astype(np.float32).astype(dtype_of(kind))
    tensor = onnx.numpy_helper.from_array(array, "w")
    found = tensor_array(tensor)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable
    if kind != TensorProto.STRING:
        assert stored_nbytes(tensor) == len(tensor.raw_data)


def sparse(dims: list[int], indices: np.ndarray, values: int) -> onnx.SparseTensorProto:  # type: ignore[type-arg]
    return helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.ones(values, np.float32), "w"),
        onnx.numpy_helper.from_array(np.asarray(indices, np.int64), "i"),
        dims,
    )


def test_sparse_tensors_are_read() -> None:
    by_place = sparse_array(sparse([2, 3], np.array([0, 5]), 2))
    by_axes = sparse_array(sparse([2, 3], np.array([[0, 0], [1, 2]]), 2))
    np.testing.assert_array_equal(by_place, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(by_axes, by_place)


WRONG_SPARSE = {
    "huge": sparse([2**40], np.array([0]), 1),
    "negative": sparse([-2, 3], np.array([0]), 1),
    "index beyond the end": sparse([2, 3], np.array([6]), 1),
    "index below zero": sparse([2, 3], np.array([-1]), 1),
    "coordinate beyond the end": sparse([2, 3], np.array([[0, 3]]), 1),
    "too few coordinates": sparse([2, 3], np.array([[0]]), 1),
    "too few indices": sparse([2, 3], np.array([0]), 2),
}


@pytest.mark.parametrize("tensor", WRONG_SPARSE.values(), ids=WRONG_SPARSE)
def test_wrong_sparse_tensors_are_refused(tensor: onnx.SparseTensorProto) -> None:
    with pytest.raises(InvalidModelError, match="sparse tensor 'w'"):
        sparse_array(tensor)


# ---------------------------------------------------------------- graphs


def test_initialisers_that_are_inputs_too_are_constants(caplog: pytest.LogCaptureFixture) -> None:
    model = add_model(inline(), ir=3)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3]))
    with caplog.at_level(logging.INFO, logger="mnnpy"):
        graph = read_graph(model)
    assert list(graph.inputs) == ["x"]
    assert list(graph.constants) == ["w"]
    assert len(caplog.records) == 1


def test_cycles_are_refused_with_their_nodes() -> None:
    model = add_model(inline())
    model.graph.node[0].input[0] = "b"
    model.graph.node.append(helper.make_node("Relu", ["y"], ["a"], "relu"))
    model.graph.node.append(helper.make_node("Neg", ["a"], ["b"], "neg"))
    with pytest.raises(InvalidModelError, match="cycle through 'relu' -> 'neg' -> 'add' -> 'relu'"):
        read_graph(model)


@pytest.mark.parametrize("name", [b"Add", b"add", b"sum"], ids=["operator", "node", "value"])
def test_names_that_are_not_utf8_are_refused(name: bytes) -> None:
    model = add_model(inline())
    model.graph.node.append(helper.make_node("Add", ["y", "y"], ["sum"], "double"))
    content = model.SerializeToString().replace(name, b"\xff\xfe\xfd")
    with pytest.raises(InvalidModelError, match="not UTF-8"):
        read_graph(load_onnx(content))


WRONG_CONSTANTS = {
    "no attribute": {},
    "two attributes": {"value_int": 1, "value_float": 1.0},
    "an unknown attribute": {"number": 1},
    "an attribute of another type": {"value_float": 1},
}


@pytest.mark.parametrize("attributes", WRONG_CONSTANTS.values(), ids=WRONG_CONSTANTS)
def test_wrong_constants_are_refused(attributes: dict[str, float]) -> None:
    model = add_model(inline())
    model.graph.node.append(helper.make_node("Constant", [], ["c"], "odd", **attributes))
    with pytest.raises(InvalidModelError, match="Constant node 'odd'"):
        read_graph(model)


def test_unnamed_dimensions_of_two_inputs_are_not_the_same() -> None:
    model = add_model(inline())
    for name in ("p", "q"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]))
    inputs = read_graph(model).inputs
    assert inputs["p"] != inputs["q"]
