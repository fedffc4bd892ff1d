"""Malformed model files, systematic and hostile, more than two hundred.

``python -m tests.runtime.malformed_models`` lists them.

Each case is a label and the bytes of a file. Hostile cases carry a right digest, so that the checks
behind it are met too.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import DTYPES, FLOAT32, TensorType
from mnnpy.runtime.model_file import MAX_HEADER_NBYTES, metadata_digest, save_model
from mnnpy.runtime.ops import OPERATORS

Case: TypeAlias = tuple[str, bytes]
Header: TypeAlias = dict[str, Any]

TRUNCATIONS = 45
HEADER_FLIPS = 60
WEIGHT_FLIPS = 15


def small_graph() -> Graph:
    """A convolution and what follows it, with constants of native and foreign element types."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3), dtype=np.float32),
        "b": rng.standard_normal(4, dtype=np.float32),
        "mask": np.array([True, False, True]),
        "int4": np.arange(-8, 8).astype(DTYPES["int4"]),
        "words": np.array(["one", "zwei", "trois"], dtype=object),
    }
    conv = OPERATORS["Conv"](strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1))  # type: ignore[call-arg]
    nodes = (
        Node("conv", conv, ("x", "w", "b"), ("y",)),
        Node("relu", OPERATORS["Relu"](), ("y",), ("z",)),
    )
    inputs = {"x": TensorType(FLOAT32, (SymbolicDim.named("n"), 3, 8, 8))}
    return Graph(nodes, inputs, ("z",), constants, "small", {"opset": "17"}).validate()


@cache
def valid_file() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.mnnpy"
        save_model(small_graph(), path)
        return path.read_bytes()


def split(content: bytes) -> tuple[Header, bytes]:
    (nbytes,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + nbytes]), content[8 + nbytes :]


def joined(header: Header | str | bytes, data: bytes) -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    raw += b" " * (-(8 + len(raw)) % 64)
    return struct.pack("<Q", len(raw)) + raw + data


def sealed(header: Header) -> Header:
    metadata = header["__metadata__"]
    metadata["digest"] = metadata_digest({k: v for k, v in metadata.items() if k != "digest"})
    return header


def with_header(change: Callable[[Header], object]) -> bytes:
    """The valid file, its header changed."""
    header, data = split(valid_file())
    change(header)
    return joined(header, data)


def with_metadata(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The valid file, its metadata changed and sealed again."""
    header, data = split(valid_file())
    change(header["__metadata__"])
    return joined(sealed(header), data)


def with_graph(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The valid file, the JSON of its graph changed and sealed again."""
    header, data = split(valid_file())
    graph = json.loads(header["__metadata__"]["graph"])
    change(graph)
    header["__metadata__"]["graph"] = json.dumps(graph)
    return joined(sealed(header), data)


def with_graph_text(text: str) -> bytes:
    """The valid file with any text as its graph, sealed again."""
    return with_metadata(lambda metadata: metadata.update(graph=text))


def set_at(*path: str | int, to: Any) -> Callable[[Any], None]:
    """A change of one place."""

    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = to

    return change


def remove(*path: str | int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        del data[path[-1]]

    return change


def all_cases() -> list[Case]:
    """Every case; each must end in a typed error."""
    return [*truncated(), *flipped(), *resized(), *hostile_headers(), *hostile_graphs(), *bombs()]


def truncated() -> Iterator[Case]:
    content = valid_file()
    lengths = sorted({*range(10), *np.linspace(10, len(content) - 1, TRUNCATIONS - 10, dtype=int)})
    for length in lengths:
        yield f"cut to {length} of {len(content)} bytes", content[:length]


def flipped() -> Iterator[Case]:
    content = valid_file()
    (nbytes,) = struct.unpack("<Q", content[:8])
    positions = random.Random(1).sample(range(8, 8 + nbytes), HEADER_FLIPS - 8)
    for position in [*range(8), *sorted(positions)]:
        bit = (position * 5) % 8
        yield f"bit {bit} of header byte {position} flipped", flip(content, position, bit)


def weight_flips() -> list[Case]:
    """Files whose damage nobody can see: they load, with other weights."""
    content = valid_file()
    _, data = split(content)
    begin = len(content) - len(data)
    positions = random.Random(2).sample(range(begin, begin + 4 * 3 * 9 * 4), WEIGHT_FLIPS)
    return [(f"bit of weight byte {p} flipped", flip(content, p, p % 8)) for p in sorted(positions)]


def flip(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def resized() -> Iterator[Case]:
    content = valid_file()
    for count in (1, 7, 64, 4096):
        yield f"{count} zeros appended", content + bytes(count)
        yield f"{count} zeros before it", bytes(count) + content
    yield "twice the file", content * 2
    for length in (0, 1, 2, 63, 64, 2**16, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**64 - 8):
        yield f"header length {length}", struct.pack("<Q", length) + content[8:]
    (nbytes,) = struct.unpack("<Q", content[:8])
    for delta in (-64, -1, 1, 64):
        yield f"header length off by {delta}", struct.pack("<Q", nbytes + delta) + content[8:]
    for magic in (b"", b"\0" * 64, b"\xff" * 64, b"PK\3\4" + bytes(60), b"\x80\4\x95" + bytes(61)):
        yield f"{len(magic)} bytes, {magic[:4]!r} ...", magic
    for repeat in ("{", "{}", "[]", "null", "1", '"text"', "\xff\xfe", "{'a': 1}", "{}}", '{"a"'):
        yield f"header {repeat!r}", joined(repeat.encode("latin-1"), b"")


def hostile_headers() -> Iterator[Case]:
    for value in (None, 1, [], "text", {}, {"format": "pt"}, {"format": ["mnnpy"]}):
        yield f"metadata {value!r}", with_header(set_at("__metadata__", to=value))
    for version in ("0", "2", "999", "", "1.0", 1, None, [1]):
        yield f"version {version!r}", with_header(set_at("__metadata__", "version", to=version))
    for key in ("format", "version", "producer", "opset", "graph", "digest"):
        yield f"without {key}", with_header(remove("__metadata__", key))
    wrong = (("producer", 1), ("opset", None), ("graph", {}), ("digest", 0), ("more", ""))
    for key, value in wrong:
        yield f"{key} {value!r}", with_header(set_at("__metadata__", key, to=value))
    yield "a digest of something else", with_header(set_at("__metadata__", "digest", to="0" * 64))
    yield "a surrogate as producer", with_header(set_at("__metadata__", "producer", to="\ud800"))
    for dtype in ("F33", "", "F64", "I32", "U8", 7, None, "float32"):
        yield f"tensor of {dtype!r}", with_header(set_at("w", "dtype", to=dtype))
    shapes: list[Any] = [[], [4], [4, 3, 3, 4], [-4, -3, 3, 3], [2**62, 4], [2**64], [10**4000]]
    shapes += [[4.0, 3, 3, 3], [True, 108], "4333", None, {}, [0], [1] * 100, [108, "1"]]
    for shape in shapes:
        yield f"tensor of shape {str(shape)[:40]}", with_header(set_at("w", "shape", to=shape))
    offsets: list[Any] = [[0, 0], [432, 0], [-432, 0], [0, 431], [0, 10**9], [2**63, 2**63 + 432]]
    offsets += [[0], [0, 432, 0], ["0", "432"], [0.0, 432.0], None, [64, 496], [10**4000, 0]]
    for pair in offsets:
        yield f"tensor at {str(pair)[:40]}", with_header(set_at("w", "data_offsets", to=pair))
    for key in ("dtype", "shape", "data_offsets"):
        yield f"tensor without {key}", with_header(remove("w", key))
    yield "tensor with more", with_header(set_at("w", "more", to=1))
    yield (
        "a tensor too many",
        with_header(set_at("v", to={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
    )
    yield "a tensor too few", with_header(remove("b"))
    yield "two tensors in one place", with_header(lambda h: h["b"].update(data_offsets=[0, 16]))
    yield "a key twice", joined('{"w":1,"w":2}', b"")
    header, data = split(valid_file())
    unaligned = {"pad": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    for key, entry in header.items():
        if key != "__metadata__":
            unaligned[key] = {**entry, "data_offsets": [o + 1 for o in entry["data_offsets"]]}
    metadata = {"__metadata__": header["__metadata__"]}
    yield "data off their alignment", joined({**metadata, **unaligned}, b"\0" + data)


def hostile_graphs() -> Iterator[Case]:
    for key in ("nodes", "inputs", "outputs", "constants", "name", "metadata"):
        yield f"graph without {key}", with_graph(remove(key))
        yield f"graph with {key} 7", with_graph(set_at(key, to=7))
    for key in ("op", "inputs", "outputs", "name"):
        yield f"node without {key}", with_graph(remove("nodes", 0, key))
        yield f"node with {key} 1.5", with_graph(set_at("nodes", 0, key, to=1.5))
    for kind in ("Nonsense", "mnnpy.Fused", "mnnpy.Copy", "", "__class__", "os.system", 3, None):
        yield f"operator {kind!r}", with_graph(set_at("nodes", 0, "op", "kind", to=kind))
    wrong = [("strides", "11"), ("strides", [1, "1"]), ("strides", [True, 1]), ("group", 1.0)]
    wrong += [("group", None), ("pads", {}), ("auto_pad", 0), ("more", 1), ("dilations", [[1]])]
    for key, value in wrong:
        path = ("nodes", 0, "op", "attributes", key)
        yield f"attribute {key} {value!r}", with_graph(set_at(*path, to=value))
    types: list[Any] = [{}, 1, "float32", {"tensor": 1}, {"tensor": {"dtype": "float32"}}]
    types += [{"tensor": {"dtype": t, "shape": []}} for t in ("float33", None, "object")]
    shapes = ([-1], [1.5], ["n"], [{}], [[]])
    types += [{"tensor": {"dtype": "float32", "shape": shape}} for shape in shapes]
    types += [{"sequence": {}}, {"optional": 1}, {"unknown": {"a": 1}}]
    types += [{"tensor": {}, "unknown": {}}]
    for value in types:
        yield f"input type {value!r}", with_graph(set_at("inputs", "x", to=value))
    stored = [("tensor", "v"), ("tensor", "b"), ("dtype", "float64"), ("dtype", "string")]
    stored += [("dtype", "nonsense"), ("more", "")]
    for key, text in stored:
        yield f"constant with {key} {text}", with_graph(set_at("constants", "w", key, to=text))
    for size in (-4, 108):
        yield f"constant of {size}", with_graph(set_at("constants", "w", "shape", to=[size]))
    for shape in ([4], [2**60], [0, 2**62, 2**62], [3] * 64):
        yield (
            f"strings of shape {shape[:3]}",
            with_graph(set_at("constants", "words", "shape", to=shape)),
        )
    yield "a constant too many", with_graph(lambda g: g["constants"].update(v=g["constants"]["w"]))
    yield "a constant too few", with_graph(remove("constants", "w"))
    yield "nodes in a cycle", with_graph(set_at("nodes", 0, "inputs", 0, to="z"))
    yield "nodes in the wrong order", with_graph(lambda g: g["nodes"].reverse())
    yield "a node that reads itself", with_graph(set_at("nodes", 1, "inputs", 0, to="z"))
    yield "a name defined twice", with_graph(set_at("nodes", 1, "outputs", 0, to="y"))
    yield "an output without a name", with_graph(set_at("nodes", 1, "outputs", 0, to=None))
    yield "a node name used twice", with_graph(set_at("nodes", 1, "name", to="conv"))
    yield "an output nobody writes", with_graph(set_at("outputs", 0, to="q"))
    for text in ("", "{", "[]", "null", '{"nodes": NaN}', '{"nodes": Infinity}', '{"a":1,"a":1}'):
        yield f"graph {text!r}", with_graph_text(text)


def bombs() -> Iterator[Case]:
    yield "100,000 open brackets", joined("[" * 100_000, b"")
    yield "100,000 open objects", joined('{"a":' * 100_000, b"")
    yield "100,000 open brackets in the graph", with_graph_text("[" * 100_000)
    yield "a graph nested 900 deep", with_graph_text("[" * 900 + "]" * 900)
    yield (
        "types nested 300 deep",
        with_graph(lambda g: g["inputs"].update(x=nested({"sequence": {"element": None}}, 300))),
    )
    yield "a number of a million digits", with_graph_text("1" * 1_000_000)
    yield "five million values", with_graph_text("[" + "[]," * 5_000_000 + "0]")
    yield "a million objects", with_graph_text("[" + '{"a":1},' * 1_000_000 + "0]")
    yield "400,000 empty objects", with_graph_text("[" + "{}," * 400_000 + "0]")
    yield "a header beyond the limit", joined("[" + " " * MAX_HEADER_NBYTES + "]", b"")
    yield "a header at the limit", joined(b'{"a":"' + b"a" * (MAX_HEADER_NBYTES - 64) + b'"}', b"")
    yield (
        "a key of a million characters",
        with_graph(
            lambda g: g["inputs"].update({"k" * 1_000_000: {"tensor": {"shape": ["x"] * 100_000}}})
        ),
    )
    yield (
        "20,000 nodes of one name",
        with_graph(
            lambda g: g.update(
                nodes=[{**g["nodes"][1], "outputs": [f"v{i}"]} for i in range(20_000)]
            )
        ),
    )


def nested(inner: Any, depth: int) -> Any:
    result: Any = {"unknown": {"more": 1}}
    for _ in range(depth):
        result = {"sequence": {"element": result}}
    return result


if __name__ == "__main__":
    listed = all_cases()
    for number, (label, content) in enumerate(listed, 1):
        print(f"{number:4} {len(content):>10} bytes  {label}")
    print(f"{len(listed)} files that must be refused, {len(weight_flips())} that load")
