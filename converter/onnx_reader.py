"""Reading ONNX: protobuf in, a validated Graph out; one importer call per node."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from mnnpy.converter.importers import find_importer
from mnnpy.converter.importers.base import Imported, OnnxNode
from mnnpy.converter.onnx_tensors import constant_array, sparse_array, tensor_array
from mnnpy.converter.onnx_types import read_type
from mnnpy.runtime.errors import InvalidModelError, MnnpyError, UnsupportedOperatorError
from mnnpy.runtime.graph.graph import Graph, Node, in_topological_order
from mnnpy.runtime.graph.types import Array, UnknownType

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
    graph = reader.read(model.graph)
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

    def read(self, proto: onnx.GraphProto, outer: Mapping[str, Array] | None = None) -> Graph:
        """One graph, or a subgraph that sees the constants ``outer``.

        Names that a subgraph captures from around it become its last inputs, in order of use.
        """
        constants = {t.name: tensor_array(t) for t in proto.initializer}
        constants |= {t.values.name: sparse_array(t) for t in proto.sparse_initializer}
        inputs = {
            value.name: read_type(value.type)
            for value in proto.input
            if value.name not in constants
        }
        local = {*inputs, *(name for node in proto.node for name in node.output)}
        visible = {name: array for name, array in (outer or {}).items() if name not in local}
        visible |= constants
        nodes: list[Node] = []
        for node_proto in proto.node:
            imported = self._import(node_proto, visible)
            nodes.extend(imported.nodes)
            constants.update(imported.constants)
            visible.update(imported.constants)
        nodes = _with_unique_names(nodes)
        outputs = tuple(value.name for value in proto.output)
        if outer is not None:
            known = {*inputs, *constants, *(name for node in nodes for name in node.writes)}
            reads = (*(name for node in nodes for name in node.reads), *outputs)
            captured = dict.fromkeys(name for name in reads if name not in known)
            inputs |= dict.fromkeys(captured, UnknownType())
        ordered = in_topological_order(nodes, {*inputs, *constants})
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
