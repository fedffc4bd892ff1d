"""Reading ONNX: protobuf in, a validated Graph out; one importer call per node."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import onnx

from mnnpy.converter.importers import find_importer
from mnnpy.converter.importers.base import Imported, Importer, OnnxNode
from mnnpy.converter.importers.user import user_importer
from mnnpy.converter.onnx_functions import (
    Function,
    FunctionId,
    domain_of,
    instantiate,
    local_functions,
    onnx_function,
)
from mnnpy.converter.onnx_schema import require_schema
from mnnpy.converter.onnx_tensors import constant_array, sparse_array, tensor_array
from mnnpy.converter.onnx_types import read_type, require_text, write_type
from mnnpy.runtime.errors import InvalidModelError, MnnpyError, UnsupportedOperatorError
from mnnpy.runtime.graph.graph import Graph, Node, in_topological_order
from mnnpy.runtime.graph.inference import infer_node, name_unknown_dims
from mnnpy.runtime.graph.types import Array, TensorType, Type, UnknownType, Value
from mnnpy.runtime.ops.user import OperatorLibrary

_LOG = logging.getLogger("mnnpy")
_MOST_EXPANDED = 200_000
"""Functions that call functions grow exponentially: a small file could fill the memory."""

_DEEPEST_CALL = 100


class _Unsupported(NamedTuple):
    domain: str
    op_type: str
    version: int
    name: str


def read_graph(model: onnx.ModelProto, operators: OperatorLibrary | None = None) -> Graph:
    """The model's graph with every node imported; functions are expanded in place.

    Parameters
    ----------
    operators : users' operators, which win over those that there is an importer for.

    Raises
    ------
    InvalidModelError
        Where names are undefined, defined twice or form a cycle.
    UnsupportedOperatorError
        Listing every operator that no importer knows, with node names and counts.
    """
    opsets = {domain_of(entry.domain): entry.version for entry in model.opset_import} or {"": 1}
    reader = _Reader(
        opsets,
        local_functions(model, opsets),
        OperatorLibrary() if operators is None else operators,
    )
    graph = reader.read(model.graph)
    if reader.unsupported:
        raise UnsupportedOperatorError(_list_unsupported(reader.unsupported))
    if reader.fed_constants:
        _LOG.info("%d initialisers are graph inputs too: constants here", len(reader.fed_constants))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    require_text(model.producer_name, model.producer_version, *metadata, *metadata.values())
    producer = f"{model.producer_name} {model.producer_version}".strip()
    metadata |= {"producer": producer, "opset": str(opsets.get("", ""))}
    return replace(graph, metadata=metadata).validate()


@dataclass
class _Scope:
    """A graph while it is read; ``visible`` are its constants and those around it.

    ``local`` are the names of its inputs and of what its nodes write; other names mean values of
    the graph ``outer``.
    """

    inputs: dict[str, Type]
    constants: dict[str, Array]
    visible: dict[str, Array]
    local: frozenset[str]
    outer: _Scope | None
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    inferred: int = 0
    """How many of the nodes have their outputs in ``values``."""

    def define(self, name: str, array: Array) -> None:
        self.constants[name] = self.visible[name] = array

    def type_of(self, name: str) -> Type | None:
        """Type of a value as far as what was read before it tells."""
        for node in self.nodes[self.inferred :]:
            # What breaks a rule is reported with the whole graph.
            with suppress(MnnpyError):
                inputs = [None if read is None else self._value(read) for read in node.inputs]
                for output, value in zip(node.outputs, infer_node(node, inputs), strict=False):
                    self.values[output] = name_unknown_dims(output, value)
        self.inferred = len(self.nodes)
        return self._value(name).type

    def _value(self, name: str) -> Value:
        if name in self.visible:
            array = self.visible[name]
            return Value(TensorType(array.dtype, array.shape), array)
        declared = self.inputs.get(name)
        if declared is not None:
            return Value(None if isinstance(declared, UnknownType) else declared)
        if self.outer is not None and name not in self.local:
            return Value(self.outer.type_of(name))
        return self.values.get(name, Value(None))


@dataclass(frozen=True)
class _Reader:
    """What reading needs to know and what it finds; the lists are shared by nested readers."""

    opsets: Mapping[str, int]
    functions: Mapping[FunctionId, Function]
    operators: OperatorLibrary
    callers: tuple[FunctionId, ...] = ()
    unsupported: list[_Unsupported] = field(default_factory=list)
    fed_constants: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    expanded: Iterator[int] = field(default_factory=itertools.count)

    def read(self, proto: onnx.GraphProto, outer: _Scope | None = None) -> Graph:
        """One graph, or a subgraph of a node in the graph ``outer``.

        Names that a subgraph captures from around it become its last inputs, in order of use.
        """
        scope = self._open(proto, outer)
        for node_proto in proto.node:
            self._add(node_proto, scope)
        nodes, inputs, constants = _with_unique_names(scope.nodes), scope.inputs, scope.constants
        outputs = tuple(value.name for value in proto.output)
        if outer is not None:
            known = {*inputs, *constants, *(name for node in nodes for name in node.outputs)}
            reads = (*(name for node in nodes for name in node.reads), *outputs)
            captured = dict.fromkeys(name for name in reads if name not in known)
            inputs |= dict.fromkeys(captured, UnknownType())
        # What an operator without an importer writes is missing; the graph is refused as a whole.
        available = {*inputs, *constants}
        ordered = tuple(nodes) if self.unsupported else in_topological_order(nodes, available)
        return Graph(ordered, inputs, outputs, constants, proto.name)

    def _open(self, proto: onnx.GraphProto, outer: _Scope | None) -> _Scope:
        """A graph's inputs and initialisers. Before IR 4 every initialiser was an input too."""
        require_text(proto.name, *(value.name for value in (*proto.input, *proto.output)))
        constants = {t.name: tensor_array(t) for t in proto.initializer}
        constants |= {t.values.name: sparse_array(t) for t in proto.sparse_initializer}
        require_text(*constants)
        self.fed_constants.extend(v.name for v in proto.input if v.name in constants)
        inputs = {
            value.name: read_type(value.type, value.name)
            for value in proto.input
            if value.name not in constants
        }
        local = frozenset((*inputs, *(name for node in proto.node for name in node.output)))
        around = {} if outer is None else outer.visible
        visible = {name: array for name, array in around.items() if name not in local}
        return _Scope(inputs, constants, visible | constants, local, outer)

    def _add(self, proto: onnx.NodeProto, scope: _Scope) -> None:
        """Import one node into the scope, or the body of the function that it calls."""
        require_text(proto.name, proto.op_type, proto.domain, proto.overload)
        require_text(*proto.input, *proto.output, *(a.name for a in proto.attribute))
        domain = domain_of(proto.domain)
        version = self.opsets.get(domain, 1)
        if proto.op_type == "Constant" and domain == "":
            for output in proto.output[:1]:
                scope.define(output, constant_array(proto))
            return
        require_schema(proto, domain, version)
        name = proto.name or f"{proto.op_type}_{next(self.numbers)}"
        importer = self._importer(domain, proto.op_type, version)
        if importer is None:
            function = self._function(proto, domain, version, scope)
            if function is None:
                self.unsupported.append(_Unsupported(domain, proto.op_type, version, name))
            else:
                self._expand(proto, function, scope)
            return
        attributes = {a.name: self._attribute(a, scope) for a in proto.attribute}
        inputs, outputs = _names(proto.input), _output_names(name, proto.output)
        node = OnnxNode(
            *(name, domain, proto.op_type, version, inputs, outputs, attributes),
            *(scope.visible, scope.type_of),
        )
        imported = _run_importer(importer, node)
        scope.nodes.extend(imported.nodes)
        for constant, array in imported.constants.items():
            scope.define(constant, array)

    def _importer(self, domain: str, op_type: str, version: int) -> Importer | None:
        own = self.operators.find(domain, op_type, version)
        return find_importer(domain, op_type, version) if own is None else user_importer(own)

    def _function(
        self, proto: onnx.NodeProto, domain: str, version: int, scope: _Scope
    ) -> Function | None:
        own = self.functions.get((domain, proto.op_type, proto.overload))
        return own or onnx_function(proto, version, lambda: _input_types(proto, scope))

    def _expand(self, call: onnx.NodeProto, function: Function, scope: _Scope) -> None:
        if function.id in self.callers:
            raise InvalidModelError(f"function {function} calls itself")
        if len(self.callers) >= _DEEPEST_CALL:
            raise InvalidModelError(f"functions call each other over {_DEEPEST_CALL} deep")
        inner = replace(self, opsets=function.opsets, callers=(*self.callers, function.id))
        # An output's name is unique in its graph, which a node's need not be.
        prefix = next(filter(None, call.output), call.name)
        for node in instantiate(function, call, prefix):
            if next(self.expanded) > _MOST_EXPANDED:
                raise InvalidModelError(f"functions expand to over {_MOST_EXPANDED} nodes")
            inner._add(node, scope)

    def _attribute(self, proto: onnx.AttributeProto, scope: _Scope) -> Any:
        kind = proto.type
        if kind == onnx.AttributeProto.GRAPH:
            return self.read(proto.g, scope)
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


def _output_names(node: str, names: Iterable[str]) -> tuple[str, ...]:
    """Output names; one left out in the middle gets a name that nobody reads."""
    listed = _names(names)
    return tuple(name or f"{node}.unused{index}" for index, name in enumerate(listed))


def _run_importer(importer: Importer, node: OnnxNode) -> Imported:
    try:
        result = importer(node)
    except MnnpyError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InvalidModelError(
            f"{node}: attributes or inputs do not fit opset {node.version}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(result, Imported):
        return result
    return Imported((Node(node.name, result, node.inputs, node.outputs),))


def _input_types(proto: onnx.NodeProto, scope: _Scope) -> list[onnx.TypeProto] | None:
    """Types of a node's inputs as far as what was read before it tells; None where one is not."""
    types = [write_type(scope.type_of(name)) if name else onnx.TypeProto() for name in proto.input]
    known = [t for t in types if t is not None]
    return known if len(known) == len(types) else None


def _with_unique_names(nodes: Iterable[Node]) -> list[Node]:
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    result = []
    for node in nodes:
        name = node.name
        while name in seen:
            counts[node.name] += 1
            name = f"{node.name}_{counts[node.name]}"
        seen.add(name)
        result.append(node if name == node.name else replace(node, name=name))
    return result


def _list_unsupported(found: Sequence[_Unsupported]) -> str:
    counts = Counter((node.domain, node.op_type, node.version) for node in found)
    lines = [f"the model uses {len(counts)} operators that are not supported:"]
    for (domain, op_type, version), count in counts.most_common():
        where = f"{domain}." if domain else ""
        names = [node.name for node in found if (node.domain, node.op_type) == (domain, op_type)]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        lines.append(f"  {where}{op_type} (opset {version}): {count}x, in {shown}")
    return "\n".join(lines)
