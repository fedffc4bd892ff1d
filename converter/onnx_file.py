"""Opening ONNX files: what is not ONNX, or would reach outside of its folder, is refused."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import defs

from mnnpy.converter.onnx_functions import domain_of
from mnnpy.converter.onnx_tensors import stored_nbytes
from mnnpy.runtime.errors import InvalidModelError

_LOG = logging.getLogger("mnnpy")
_MAX_NBYTES = 2**31 - 1
"""Protobuf reads no larger message."""

_OLDEST_OPSET = 7
"""Before this opset broadcasting was an attribute and some operators were experiments."""

_OLDEST_IR_WITH_OPSETS = 3


def load_onnx(source: str | Path | bytes) -> onnx.ModelProto:
    """A model with the content of every tensor inside, external data included.

    Parameters
    ----------
    source : path of an ``.onnx`` file, or such a file's content.

    Raises
    ------
    InvalidModelError
        Where the file cannot be read, is no ONNX model, is newer than the installed onnx, or where
        a tensor's external data lies outside of the model's folder or does not fit the tensor.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        model = _parse(bytes(source), f"the {len(source)} bytes given")
        external = [tensor for tensor in _tensors(model) if _is_external(tensor)]
        if external:
            raise InvalidModelError(
                f"the model keeps the data of {len(external)} tensors in other files "
                f"({external[0].name!r} first): give it as a path, not as bytes"
            )
        return model
    path = Path(source)
    model = _parse(_read(path), f"{path}")
    _load_external_data(model, path.parent)
    return model


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise InvalidModelError(f"{path} is a directory, not an ONNX file")
        if not stat.S_ISREG(found.st_mode):
            raise InvalidModelError(f"{path} is not a regular file")
        if found.st_size > _MAX_NBYTES:
            raise InvalidModelError(
                f"{path} has {found.st_size} bytes, ONNX files end at 2 GiB: "
                "save the model with external data"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidModelError(f"{path} cannot be read: {reason}") from error


def _parse(content: bytes, name: str) -> onnx.ModelProto:
    if not content:
        raise InvalidModelError(f"{name}: empty, not an ONNX model")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise InvalidModelError(f"{name}: not an ONNX model, or a truncated one") from error
    if not model.HasField("graph"):
        raise InvalidModelError(f"{name}: not an ONNX model, it holds no graph")
    if not 0 < model.ir_version <= onnx.IR_VERSION:
        raise InvalidModelError(
            f"{name}: IR version {model.ir_version}, onnx {onnx.__version__} knows 1 to "
            f"{onnx.IR_VERSION}"
        )
    if not model.opset_import and model.ir_version >= _OLDEST_IR_WITH_OPSETS:
        raise InvalidModelError(f"{name}: names no opset that it is written in")
    _check_opsets(model, name)
    return model


def _check_opsets(model: onnx.ModelProto, name: str) -> None:
    imports = [*model.opset_import, *(o for f in model.functions for o in f.opset_import)]
    for entry in imports:
        domain = domain_of(entry.domain)
        newest = _newest_opsets().get(domain)
        if newest is not None and not 0 < entry.version <= newest:
            raise InvalidModelError(
                f"{name}: opset {entry.version} of domain {domain or 'ai.onnx'!r}, onnx "
                f"{onnx.__version__} knows 1 to {newest}: upgrade onnx or export an older opset"
            )
        if not domain and entry.version < _OLDEST_OPSET:
            _LOG.warning(
                "%s: opset %d is older than %d; some of its operators may be misunderstood",
                name,
                entry.version,
                _OLDEST_OPSET,
            )


@cache
def _newest_opsets() -> dict[str, int]:
    """The newest version of every domain that the installed onnx knows."""
    newest: dict[str, int] = {}
    for schema in defs.get_all_schemas_with_history():
        newest[schema.domain] = max(newest.get(schema.domain, 0), schema.since_version)
    return newest | {"": int(defs.onnx_opset_version())}


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where a tensor's content stands in another file."""

    location: str
    offset: int
    nbytes: int


def _load_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Read what tensors keep in files below ``folder``; every size is checked before."""
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for tensor in _tensors(model):
            if not _is_external(tensor):
                continue
            extent = _extent(tensor)
            if extent.location not in files:
                opened = _open_below(folder, extent.location, tensor.name)
                files[extent.location] = stack.enter_context(opened)
            tensor.raw_data = _read_extent(files[extent.location], extent, tensor.name)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _extent(tensor: onnx.TensorProto) -> _Extent:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    nbytes = stored_nbytes(tensor)
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise InvalidModelError(f"tensor {tensor.name!r}: {key} {text!r} is not a size")
        numbers[key] = int(text) if text else None
    length = numbers["length"]
    if length is not None and length != nbytes:
        raise InvalidModelError(
            f"tensor {tensor.name!r} of dimensions {list(tensor.dims)} takes {nbytes} bytes, "
            f"its external data has the length {length}"
        )
    return _Extent(entries.get("location", ""), numbers["offset"] or 0, nbytes)


def _open_below(folder: Path, location: str, tensor: str) -> BinaryIO:
    """Open a file that lies below ``folder``, also after following links, and has one name only."""

    def refuse(reason: str) -> InvalidModelError:
        return InvalidModelError(f"tensor {tensor!r}: external data {location!r} {reason}")

    kinds = (PurePosixPath(location), PureWindowsPath(location))
    if not location or "\0" in location:
        raise refuse("is not a file name")
    if any(kind.anchor or ".." in kind.parts for kind in kinds):
        raise refuse("does not stay below the model's folder")
    try:
        root = folder.resolve(strict=True)
        target = (root / location).resolve(strict=True)
        if not target.is_relative_to(root):
            raise refuse("is a link that leads out of the model's folder")
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        opened = os.fdopen(os.open(target, flags | getattr(os, "O_NONBLOCK", 0)), "rb")
    except (OSError, RuntimeError) as error:
        raise refuse(f"cannot be read: {getattr(error, 'strerror', error)}") from error
    found = os.fstat(opened.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        opened.close()
        regular = stat.S_ISREG(found.st_mode)
        raise refuse("has several hard links" if regular else "is not a regular file")
    return opened


def _read_extent(file: BinaryIO, extent: _Extent, tensor: str) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if extent.offset + extent.nbytes > size:
        raise InvalidModelError(
            f"tensor {tensor!r}: {extent.nbytes} bytes from {extent.offset} on do not fit into "
            f"{extent.location!r}, which has {size}"
        )
    file.seek(extent.offset)
    content = file.read(extent.nbytes)
    if len(content) != extent.nbytes:
        raise InvalidModelError(f"{extent.location!r} became shorter while it was read")
    return content


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model, those of subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
        for node in function.node:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)
