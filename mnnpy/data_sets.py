"""ONNX test data: folders ``test_data_set_*`` of ``input_0.pb``, ``output_0.pb`` and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import OptionalType, SequenceType, Type

MODEL_NAMES = ("model.onnx", "model.mnnpy")


def model_in(folder: Path) -> Path:
    """The model of a folder: one of the usual name, or the only one.

    Raises
    ------
    FeedError
        Where there is none, or several of other names.
    """
    for name in MODEL_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = sorted((*folder.glob("*.onnx"), *folder.glob("*.mnnpy")))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "no .onnx or .mnnpy file"
        raise FeedError(f"{folder}: holds {listed}: name the model {MODEL_NAMES[0]}")
    return found[0]


def data_sets_in(folder: Path) -> list[Path]:
    """The data sets of a folder, or the folder itself where it is one.

    Raises
    ------
    FeedError
        Where it is neither.
    """
    if any(folder.glob("output_*.pb")):
        return [folder]
    if not folder.is_dir():
        raise FeedError(f"{folder}: no folder of ONNX test data")
    sets = sorted(path for path in folder.glob("test_data_set_*") if path.is_dir())
    if not sets:
        raise FeedError(f"{folder}: holds neither output_*.pb files nor test_data_set_* folders")
    return sets


def read_data_set(folder: Path, graph: Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    """Feeds and expected outputs by name; files are in the model's order.

    Raises
    ------
    FeedError
        Where there are more files than inputs or outputs, or one holds something else.
    """
    values = infer_values(graph)
    outputs = {name: values[name].type for name in graph.outputs}
    return _read(folder, "input", graph.inputs), _read(folder, "output", outputs)


def write_data_set(folder: Path, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Write a data set; the order of the mappings is that of the model's inputs and outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, values in (("input", inputs), ("output", outputs)):
        for index, (name, value) in enumerate(values.items()):
            write_atomically(folder / f"{role}_{index}.pb", _message(name, value))


def read_tensor(path: Path, value_type: Type | None = None) -> Any:
    """Content of an ONNX ``.pb`` file: a tensor, or what the type says (sequence, optional).

    Raises
    ------
    FeedError
        Where the file holds no such protobuf message.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    content = path.read_bytes()
    try:
        if isinstance(value_type, SequenceType):
            return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
        if isinstance(value_type, OptionalType):
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
        array = numpy_helper.to_array(onnx.TensorProto.FromString(content))
    except (DecodeError, ValueError, TypeError) as error:
        raise FeedError(f"{path}: holds no ONNX {value_type or 'tensor'}: {error}") from error
    return array.astype(object) if array.dtype.kind in "SU" else array


def _read(folder: Path, role: str, types: Mapping[str, Type | None]) -> dict[str, Any]:
    return {
        name: read_tensor(path, types[name]) for name, path in _files(folder, role, list(types))
    }


def _files(folder: Path, role: str, names: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """(value name, file) of ``role_0.pb``, ``role_1.pb``, ... in the model's order."""
    count = len(list(folder.glob(f"{role}_*.pb")))
    if count > len(names):
        raise FeedError(f"{folder}: {count} {role} files for the model's {len(names)} {role}s")
    for index in range(count):
        yield names[index], folder / f"{role}_{index}.pb"


def _message(name: str, value: Any) -> bytes:
    """A value as the protobuf message that ONNX keeps it in."""
    from onnx import numpy_helper

    if isinstance(value, list):
        made = numpy_helper.from_list(value, name)
    elif value is None:
        made = numpy_helper.from_optional(None, name)
    else:
        made = numpy_helper.from_array(np.asarray(value), name)
    return bytes(made.SerializeToString())
