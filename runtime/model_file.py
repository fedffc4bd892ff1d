"""Model files (``.mnnpy``): a safetensors container that holds a graph and its constants.

The graph is JSON in the container's ``__metadata__``, beside the format's version, who wrote it
and the opset that it came from; a digest covers them all. Constants are the container's tensors.
Element types that safetensors lacks are kept as bytes, strings as JSON in UTF-8; the graph names
the true type. Safetensors allows no gaps, so tensors of whole cache lines come first and lie on
64-byte boundaries of the file; the others follow by falling element size, aligned to their own.

Loading maps the file and checks every claim of its header before anything is built from it. The
arrays are read-only views of the map: processes that load the same file share its pages. A file
that another program shortens while it is mapped takes the process down (SIGBUS), as with every
memory map; :func:`save_model` replaces files instead of changing them.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mnnpy.runtime import VERSION
from mnnpy.runtime.codec import (
    Decoder,
    Json,
    Where,
    dtype_from,
    encode,
    malformed,
    parse_json,
    shown,
    write_json,
)
from mnnpy.runtime.errors import ModelFormatError
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, DTYPES, STRING, Array, DType, dtype_name
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.user import OperatorLibrary, user_operators

FORMAT = "mnnpy"
FORMAT_VERSION = "1"
MAX_HEADER_NBYTES = 32 << 20
"""Most bytes of a header: 30,000 nodes with long names take half of it."""

_LINE_NBYTES = 64
_LENGTH_NBYTES = 8
_MAX_RANK = 32
_NATIVE = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
_ITEMSIZES = {code: DTYPES[name].itemsize for name, code in _NATIVE.items()}

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as safetensors describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    def __str__(self) -> str:
        return f"{shown(self.dtype)} of shape {shown(self.shape)}"


@dataclass(frozen=True, slots=True)
class _Stored:
    """A constant as the graph describes it."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def element(self) -> DType:
        return DTYPES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype} of shape {shown(self.shape)}"


@dataclass(frozen=True, slots=True)
class _Metadata:
    format: str
    version: str
    producer: str
    opset: str
    graph: str
    digest: str


def save_model(graph: Graph, path: str | Path) -> None:
    """Write a graph to a file, whole or not at all; what stood there before is replaced.

    Raises
    ------
    ModelFormatError
        Where the graph holds what the file cannot, or the file cannot be written.
    """
    tensors = _Tensors()
    text = write_json(encode(graph.validate(), tensors.store))
    header = tensors.header(_sealed(text, graph.metadata.get("opset", "")))
    _check_loads(header, OPERATORS | user_operators(graph))

    def write(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(_LENGTH_NBYTES, "little") + header)
        for key in tensors.order:
            file.write(tensors.content[key].data)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise ModelFormatError(f"cannot write {str(path)!r}: {error.strerror}") from error


def load_model(source: str | Path | bytes, operators: OperatorLibrary | None = None) -> Graph:
    """The graph of a model file, its constants as read-only views of the memory-mapped file.

    Parameters
    ----------
    source : the file's path, or its content.
    operators : users' operators that the graph may have.

    Raises
    ------
    ModelFormatError
        Where the file cannot be read, is truncated, corrupted or of another version; says what is
        wrong with it.
    """
    known = OPERATORS if operators is None else OPERATORS | operators.classes
    named = "the model's bytes" if isinstance(source, bytes) else repr(str(source))
    try:
        content = np.frombuffer(source, np.uint8) if isinstance(source, bytes) else _mapped(source)
        return _Reader(content).graph(known)
    except ModelFormatError as error:
        raise ModelFormatError(f"{named} is no valid model file: {error}") from error


def release_pages(array: Array) -> None:
    """Give back the memory of a constant of a mapped file; whoever reads it again maps it again.

    Leaves every other array alone.
    """
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    if not isinstance(base, np.memmap) or base.mode != "r" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    mapped: Any = base.base
    begin = array.ctypes.data - base.ctypes.data + base.offset % mmap.ALLOCATIONGRANULARITY
    first, last = -(-begin // mmap.PAGESIZE), (begin + array.nbytes) // mmap.PAGESIZE
    if first < last:
        mapped.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


@dataclass
class _Tensors:
    """Constants on their way into a container."""

    stored: dict[str, _Stored] = field(default_factory=dict)
    content: dict[str, Bytes] = field(default_factory=dict)

    def store(self, name: str, array: Array) -> Json:
        """Keep an array under its name, or another where a subgraph's constant has the same."""
        dtype = dtype_name(np.asarray(array).dtype)
        if dtype not in DTYPES:
            raise ModelFormatError(f"constant {name!r} has the type {dtype}, which no model has")
        key, count = name, 0
        while key in self.stored or key == "__metadata__":
            key, count = f"{name}#{count}", count + 1
        self.stored[key] = _Stored(key, dtype, tuple(np.shape(array)))
        self.content[key] = _as_bytes(array, DTYPES[dtype])
        return {**asdict(self.stored[key]), "shape": list(np.shape(array))}

    @property
    def order(self) -> list[str]:
        """Keys in the order of the file; see the module's text on alignment."""

        def rank(key: str) -> tuple[bool, int]:
            return self.content[key].nbytes % _LINE_NBYTES > 0, -_itemsize(self.stored[key])

        return sorted(self.stored, key=rank)

    def header(self, metadata: Mapping[str, str]) -> bytes:
        """The container's JSON, padded so that the data begin on a cache line."""
        entries: dict[str, Json] = {"__metadata__": metadata}
        end = 0
        for key in self.order:
            begin, end = end, end + self.content[key].nbytes
            code, shape = _physical(self.stored[key], end - begin)
            entries[key] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
        text = write_json(entries).encode()
        return text + b" " * (-(_LENGTH_NBYTES + len(text)) % _LINE_NBYTES)


def _as_bytes(array: Array, dtype: DType) -> Bytes:
    """The content of a constant, little-endian and row-major."""
    if dtype == STRING:
        return np.frombuffer(write_json(np.asarray(array).reshape(-1).tolist()).encode(), np.uint8)
    return np.asarray(array, dtype, order="C").reshape(-1).view(np.uint8)


def _physical(stored: _Stored, nbytes: int) -> tuple[str, list[int]]:
    """Type and shape under which safetensors knows a constant."""
    if stored.dtype in _NATIVE:
        return _NATIVE[stored.dtype], list(stored.shape)
    return "U8", [nbytes]


def _itemsize(stored: _Stored) -> int:
    return 1 if stored.element == STRING else stored.element.itemsize


def _sealed(graph: str, opset: str) -> dict[str, str]:
    entries = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "producer": f"mnnpy {VERSION}",
        "opset": opset,
        "graph": graph,
    }
    return {**entries, "digest": metadata_digest(entries)}


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """SHA-256 of everything in the metadata but the digest itself."""
    digest = hashlib.sha256()
    for key in sorted(metadata):
        if key != "digest":
            entry = f"{key} {len(metadata[key])}\n{metadata[key]}"
            digest.update(entry.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check_loads(header: bytes, operators: Mapping[str, type[Op]]) -> None:
    """Refuse to write what could not be read again: attributes of wrong types, too much of it."""
    if len(header) > MAX_HEADER_NBYTES:
        raise ModelFormatError(f"the header takes {len(header)} bytes, over {MAX_HEADER_NBYTES}")
    text = parse_json(header)["__metadata__"]["graph"]
    Decoder(operators, lambda stored, where: None).decode(parse_json(text), Graph, "graph")


def _mapped(path: str | Path) -> Bytes:
    """The file's bytes through a read-only memory map."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelFormatError("it is not a regular file")
        if status.st_size == 0:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise ModelFormatError(f"cannot read it: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelFormatError(f"cannot read it: {error}") from error


class _Reader:
    """Checks a container's claims and hands out its tensors."""

    def __init__(self, content: Bytes) -> None:
        self._content = content
        self._begin, header = _parsed_header(content)
        self._metadata = _checked_metadata(header.pop("__metadata__", None))
        decode = Decoder().decode
        self._entries = {
            key: decode(entry, _Entry, f"tensor {shown(key)}") for key, entry in header.items()
        }
        _check_extents(self._entries, len(content) - self._begin)

    def graph(self, operators: Mapping[str, type[Op]]) -> Graph:
        data = parse_json(self._metadata.graph)
        graph: Graph = Decoder(operators, self._fetch).decode(data, Graph, "graph")
        if self._entries:
            raise ModelFormatError(
                f"no constant uses the tensor {shown(next(iter(self._entries)))}"
            )
        return graph

    def _fetch(self, data: Json, where: Where) -> Array:
        """The array of a constant; each tensor serves one."""
        stored: _Stored = Decoder().decode(data, _Stored, where)
        dtype_from(stored.dtype, (where, "dtype"))
        entry = self._entries.pop(stored.tensor, None)
        if entry is None:
            raise malformed(where, f"there is no tensor {shown(stored.tensor)} (left)")
        begin, end = entry.data_offsets
        if (entry.dtype, list(entry.shape)) != _physical(stored, end - begin):
            raise malformed(where, f"{stored} does not fit tensor {shown(stored.tensor)}, {entry}")
        if stored.element == STRING:
            return self._strings(begin, end, stored, where)
        return self._view(begin, end, stored, where)

    def _view(self, begin: int, end: int, stored: _Stored, where: Where) -> Array:
        element = stored.element
        _check_shape(stored.shape, where)
        if math.prod(stored.shape) * element.itemsize != end - begin:
            raise malformed(where, f"{stored} in {end - begin} bytes")
        offset = self._begin + begin
        if offset % min(element.itemsize, _LENGTH_NBYTES):
            raise malformed(where, "its data are not aligned to its elements")
        try:
            array: Array = np.ndarray(stored.shape, element, self._content, offset)
        except ValueError as error:
            raise malformed(where, f"{stored}: {error}") from error
        if element == BOOL and array.view(np.uint8).max(initial=0) > 1:
            raise malformed(where, "a bool that is neither 0 nor 1")
        return array

    def _strings(self, begin: int, end: int, stored: _Stored, where: Where) -> Array:
        text = self._content[self._begin + begin : self._begin + end].tobytes()
        strings = Decoder().decode(parse_json(text), tuple[str, ...], where)
        _check_shape(stored.shape, where)
        if len(strings) != math.prod(stored.shape):
            raise malformed(where, f"{stored}, of which there are {len(strings)}")
        array = np.empty(len(strings), STRING)
        array[:] = strings
        array.flags.writeable = False
        try:
            return array.reshape(stored.shape)
        except ValueError as error:
            raise malformed(where, f"{stored}: {error}") from error


def _parsed_header(content: Bytes) -> tuple[int, dict[str, Json]]:
    """Where the data begin, and the header as JSON."""
    if len(content) < _LENGTH_NBYTES:
        raise ModelFormatError(f"it has {len(content)} bytes, too few for a header")
    nbytes = int.from_bytes(content[:_LENGTH_NBYTES].tobytes(), "little")
    begin = _LENGTH_NBYTES + nbytes
    if begin > len(content):
        raise ModelFormatError(
            f"the header's length is given as {nbytes} bytes, the whole file has {len(content)}: "
            "truncated, or not a model file"
        )
    if nbytes > MAX_HEADER_NBYTES:
        raise ModelFormatError(f"a header of {nbytes} bytes; at most {MAX_HEADER_NBYTES} are read")
    header = parse_json(content[_LENGTH_NBYTES:begin].tobytes())
    if not isinstance(header, dict):
        raise ModelFormatError("the header is not a JSON object")
    return begin, header


def _checked_metadata(data: Json) -> _Metadata:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelFormatError("a safetensors file that was not written by mnnpy")
    version = data.get("version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"it is of format version {shown(version)}, mnnpy {VERSION} reads version "
            f"{FORMAT_VERSION!r}: convert the ONNX model again"
        )
    metadata: _Metadata = Decoder().decode(data, _Metadata, "metadata")
    if metadata_digest(data) != metadata.digest:
        raise ModelFormatError("the graph does not fit its digest: the file is corrupted")
    return metadata


def _check_extents(entries: Mapping[str, _Entry], available: int) -> None:
    """Tensors must fill the data without holes and overlaps, each as large as its shape says."""
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        where = f"tensor {shown(key)}"
        if entry.dtype not in _ITEMSIZES:
            raise malformed(where, f"unknown type {shown(entry.dtype)}")
        _check_shape(entry.shape, where)
        nbytes = math.prod(entry.shape) * _ITEMSIZES[entry.dtype]
        if begin != position or end - begin != nbytes:
            raise malformed(
                where,
                f"{entry} takes {nbytes} bytes from {position} on, "
                f"the header says {shown(begin)} to {shown(end)}",
            )
        position = end
    if position != available:
        raise ModelFormatError(f"its tensors take {position} bytes, the file holds {available}")


def _check_shape(shape: tuple[int, ...], where: Where) -> None:
    if len(shape) > _MAX_RANK:
        raise malformed(where, f"{len(shape)} dimensions; at most {_MAX_RANK} are read")
    if any(not 0 <= dim < 2**63 for dim in shape):
        raise malformed(where, f"shape {shown(shape)} is negative or too large")
