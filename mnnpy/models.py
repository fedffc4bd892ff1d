"""Models from whatever a user has: ``.mnnpy`` and ``.onnx`` files, or their bytes."""

from __future__ import annotations

from pathlib import Path

from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.model_file import load_model as load_mnnpy
from mnnpy.runtime.ops.user import OperatorLibrary

_HEAD_NBYTES = 9


def load_model(
    model: Graph | str | Path | bytes, operators: OperatorLibrary | None = None
) -> Graph:
    """The graph of a model; ONNX is converted on the way.

    A file called ``.mnnpy`` is one; of others, and of bytes, the content says what they are.

    Parameters
    ----------
    operators : users' operators that the model may have.

    Raises
    ------
    ModelFormatError, InvalidModelError, UnsupportedOperatorError
        Where the file cannot be read, is no valid model, or has operators that no importer knows.
    """
    if isinstance(model, Graph):
        return model
    if is_onnx(model):
        from mnnpy.converter.pipeline import convert

        return convert(model, operators=operators)
    return load_mnnpy(model, operators)


def is_onnx(model: str | Path | bytes) -> bool:
    """Whether a model is to be read as ONNX: it is not called ``.mnnpy``, and is none."""
    if isinstance(model, bytes):
        return not _is_mnnpy(model[:_HEAD_NBYTES])
    if Path(model).suffix.lower() == ".mnnpy":
        return False
    try:
        with Path(model).open("rb") as file:
            return not _is_mnnpy(file.read(_HEAD_NBYTES))
    except OSError:
        return True  # The converter says why it cannot be read.


def _is_mnnpy(head: bytes) -> bool:
    """Whether a file starts like safetensors: the header's length in 8 bytes, then JSON.

    ONNX starts with a protobuf tag and the IR version, which as a length would be absurd.
    """
    return len(head) == _HEAD_NBYTES and head.endswith(b"{") and head[5:8] == b"\0\0\0"
