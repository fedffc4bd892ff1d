"""Reading ONNX: protobuf in, a validated Graph out; one importer call per node."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from mnnpy.converter.importers import find_importer
from mnnpy.converter.importers.base import Imported, OnnxNode
from mnnpy.runtime.errors import InvalidModelError, MnnpyError, UnsupportedOperatorError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node, in_topological_order
from mnnpy.runtime.graph.types import (
    DTYPES,
    STRING,
    Array,
    DType,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
)

_ONNX_DOMAINS = ("", "ai.onnx")


def read_graph(model: onnx.ModelProto) -> Graph:
    """The model's graph with every node imported.

    Raises
    ------
    InvalidModelError
        Where names are undefined, defined twice or form a cycle.
    UnsupportedOperatorError
        Listing every operator that no importer knows, with node names and counts.
    """
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    reader = _Reader(opsets or {"": 1})
    graph = reader.read(model.graph, outer={})
    if reader.unsupported:
        raise UnsupportedOperatorError(_list_unsupported(reader.unsupported, opsets))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    producer = f"{model.producer_name} {model.producer_version}".strip()
    metadata |= {"producer": producer, "opset": str(opsets.get("", ""))}
    return Graph(
        graph.nodes, graph.inputs, graph.outputs, graph.constants, graph.name, metadata
    ).validate()


@dataclass
class _Reader:
    """State of one reading: opset versions and what could not be imported."""

    opsets: Mapping[str, int]
    unsupported: list[tuple[str, str, str]] = field(default_factory=list)
    counter: Iterable[int] = field(default_factory=itertools.count)

    def read(self, proto: onnx.GraphProto, outer: Mapping[str, Array]) -> Graph:
        """One graph or subgraph; ``outer`` are the constants that a subgraph can see."""
        constants = {t.name: tensor_array(t) for t in proto.initializer}
        constants |= {t.values.name: sparse_array(t) for t in proto.sparse_initializer}
        inputs = {
            value.name: read_type(value.type)
            for value in proto.input
            if value.name not in constants
        }
        nodes: list[Node] = []
        visible = {**outer, **constants}
        for node_proto in proto.node:
            imported = self._import(node_proto, visible)
            nodes.extend(imported.nodes)
            constants.update(imported.constants)
            visible.update(imported.constants)
        nodes = _with_unique_names(nodes)
        written = {name for node in nodes for name in node.writes}
        captured = {
            name
            for node in nodes
            for name in node.reads
            if name not in written and name not in constants and name not in inputs
        }
        captured |= {v.name for v in proto.output} - written - set(constants) - set(inputs)
        available = {*inputs, *constants, *(captured if outer is not None else ())}
        ordered = in_topological_order(nodes, available)
        outputs = tuple(value.name for value in proto.output)
        return Graph(ordered, inputs, outputs, constants, proto.name)

    def _import(self, proto: onnx.NodeProto, constants: Mapping[str, Array]) -> Imported:
        domain = _domain(proto.domain)
        name = proto.name or f"{proto.op_type}_{next(iter(self.counter))}"
        version = self.opsets.get(domain, 1)
        if proto.op_type == "Constant" and domain == "":
            return Imported((), {proto.output[0]: constant_array(proto)})
        importer = find_importer(domain, proto.op_type, version)
        outputs = _names(proto.output)
        node = OnnxNode(
            name,
            domain,
            proto.op_type,
            version,
            _names(proto.input),
            outputs,
            {a.name: self._attribute(a, constants) for a in proto.attribute},
            constants,
        )
        if importer is None:
            self.unsupported.append((domain, proto.op_type, name))
            return Imported(())
        try:
            result = importer(node)
        except MnnpyError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InvalidModelError(
                f"{node}: attributes or inputs do not fit opset {version}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if isinstance(result, Imported):
            return result
        return Imported((Node(name, result, node.inputs, outputs),))

    def _attribute(self, proto: onnx.AttributeProto, constants: Mapping[str, Array]) -> Any:
        kind = proto.type
        if kind == onnx.AttributeProto.GRAPH:
            return self.read(proto.g, constants)
        if kind == onnx.AttributeProto.TENSOR:
            return tensor_array(proto.t)
        if kind == onnx.AttributeProto.STRING:
            return proto.s.decode("utf-8", "surrogateescape")
        if kind == onnx.AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "surrogateescape") for s in proto.strings)
        if kind == onnx.AttributeProto.TYPE_PROTO:
            return read_type(proto.tp)
        value = onnx.helper.get_attribute_value(proto)
        return tuple(value) if isinstance(value, list) or hasattr(value, "append") else value


def read_type(proto: onnx.TypeProto) -> Type:
    """ONNX's type as ours; unnamed dimensions get a symbol."""
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        return SequenceType(read_type(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return OptionalType(read_type(proto.optional_type.elem_type))
    if kind != "tensor_type":
        raise InvalidModelError(f"values of type {kind or 'nothing'} are not supported")
    tensor = proto.tensor_type
    dims: list[int | SymbolicDim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            dims.append(dim.dim_value)
        else:
            dims.append(SymbolicDim.named(dim.dim_param or f"d{axis}"))
    return TensorType(dtype_of(tensor.elem_type), tuple(dims))


def dtype_of(elem_type: int) -> DType:
    """NumPy dtype of an ONNX element type. Raises ``InvalidModelError`` on unknown numbers."""
    try:
        name = onnx.TensorProto.DataType.Name(elem_type).lower()
    except ValueError:
        raise InvalidModelError(f"element type {elem_type} does not exist in ONNX") from None
    name = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn"}.get(
        name, name
    )
    renamed = {
        "float8e4m3fnuz": "float8_e4m3fnuz",
        "float8e5m2": "float8_e5m2",
        "float8e5m2fnuz": "float8_e5m2fnuz",
        "float8e8m0": "float8_e8m0fnu",
        "float4e2m1": "float4_e2m1fn",
    }
    dtype = DTYPES.get(renamed.get(name, name))
    if dtype is None:
        raise InvalidModelError(f"element type {name} is not supported")
    return dtype


def tensor_array(proto: onnx.TensorProto) -> Array:
    """Content of an ONNX tensor as a read-only NumPy array; strings as ``str`` objects."""
    try:
        array = numpy_helper.to_array(proto)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidModelError(f"tensor {proto.name!r} cannot be read: {error}") from error
    if array.dtype.kind in "OSU":
        flat = [s.decode() if isinstance(s, bytes) else str(s) for s in array.reshape(-1)]
        strings = np.empty(len(flat), dtype=STRING)
        strings[:] = flat
        return strings.reshape(array.shape)
    array = np.asarray(array)
    array.flags.writeable = False
    return array


def sparse_array(proto: onnx.SparseTensorProto) -> Array:
    """A sparse tensor as a dense array."""
    values, indices = tensor_array(proto.values), tensor_array(proto.indices)
    dense = np.zeros(tuple(proto.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def constant_array(proto: onnx.NodeProto) -> Array:
    """Content of a Constant node, whichever attribute holds it."""
    (attribute,) = proto.attribute
    if attribute.name == "value":
        return tensor_array(attribute.t)
    if attribute.name == "sparse_value":
        return sparse_array(attribute.sparse_tensor)
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value_string":
        return np.array(value.decode(), dtype=STRING)
    if attribute.name == "value_strings":
        return np.array([s.decode() for s in value], dtype=STRING)
    dtype = np.float32 if attribute.name in ("value_float", "value_floats") else np.int64
    return np.array(value, dtype=dtype)


def _names(names: Iterable[str]) -> tuple[str | None, ...]:
    listed = [name or None for name in names]
    while listed and listed[-1] is None:
        listed.pop()
    return tuple(listed)


def _domain(domain: str) -> str:
    return "" if domain in _ONNX_DOMAINS else domain


def _with_unique_names(nodes: Iterable[Node]) -> list[Node]:
    seen: set[str] = set()
    result = []
    for node in nodes:
        name, count = node.name, 0
        while name in seen:
            count += 1
            name = f"{node.name}_{count}"
        seen.add(name)
        result.append(Node(name, node.op, node.inputs, node.outputs) if count else node)
    return result


def _list_unsupported(found: Iterable[tuple[str, str, str]], opsets: Mapping[str, int]) -> str:
    names: dict[tuple[str, str], list[str]] = {}
    for domain, op_type, name in found:
        names.setdefault((domain, op_type), []).append(name)
    counts = Counter({key: len(nodes) for key, nodes in names.items()})
    lines = [f"the model uses {len(names)} operators that are not supported:"]
    for (domain, op_type), count in counts.most_common():
        where = f"{domain}." if domain else ""
        shown = ", ".join(names[domain, op_type][:3]) + (", ..." if count > 3 else "")
        lines.append(f"  {where}{op_type} (opset {opsets.get(domain, 1)}): {count}x, in {shown}")
    return "\n".join(lines)
