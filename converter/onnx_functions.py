"""Functions: operators that a model or ONNX itself defines through other operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx
from onnx import defs

from mnnpy.runtime.errors import InvalidModelError

FunctionId: TypeAlias = tuple[str, str, str]
"""Domain, name and overload."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function's body, the opsets it is written in and its attributes' defaults."""

    id: FunctionId
    proto: onnx.FunctionProto
    opsets: Mapping[str, int]
    defaults: Mapping[str, onnx.AttributeProto]

    def __str__(self) -> str:
        domain, name, overload = self.id
        return ".".join(filter(None, (domain, name, overload)))


def local_functions(
    model: onnx.ModelProto, opsets: Mapping[str, int]
) -> dict[FunctionId, Function]:
    """The model's own functions. Raises ``InvalidModelError`` where one is defined twice."""
    found: dict[FunctionId, Function] = {}
    for proto in model.functions:
        function_id = (domain_of(proto.domain), proto.name, proto.overload)
        if function_id in found:
            raise InvalidModelError(f"function {found[function_id]} is defined twice")
        defaults = {attribute.name: attribute for attribute in proto.attribute_proto}
        found[function_id] = Function(function_id, proto, {**opsets, **_opsets(proto)}, defaults)
    return found


def onnx_function(
    node: onnx.NodeProto, version: int, types: Callable[[], Sequence[onnx.TypeProto] | None]
) -> Function | None:
    """ONNX's own definition of an operator through others, or None where there is none.

    Parameters
    ----------
    types : gives the types of the node's inputs, None where one is not known; asked only where
        the definition depends on them.
    """
    domain = domain_of(node.domain)
    try:
        # onnx's own type stubs do not list what an OpSchema says about functions.
        schema: Any = defs.get_schema(node.op_type, version, domain)
    except defs.SchemaError:
        return None
    proto = onnx.FunctionProto()
    if fixed := _newest(schema.function_opset_versions, version):
        proto.ParseFromString(schema.get_function_with_opset_version(fixed))
    elif typed := _newest(schema.context_dependent_function_opset_versions, version):
        known = types()
        if known is None:
            return None
        encoded = [t.SerializeToString() for t in known]
        proto.ParseFromString(
            schema.get_context_dependent_function_with_opset_version(
                typed, node.SerializeToString(), encoded
            )
        )
    if not proto.node:
        return None
    defaults = {
        name: a.default_value for name, a in schema.attributes.items() if a.default_value.name
    }
    opsets = {domain: version, **_opsets(proto)}
    return Function((domain, node.op_type, ""), proto, opsets, defaults)


def instantiate(function: Function, call: onnx.NodeProto, prefix: str) -> Iterator[onnx.NodeProto]:
    """The body's nodes with the call's names and attributes; inner names start with ``prefix``."""
    proto = function.proto
    if len(call.input) > len(proto.input) or len(call.output) > len(proto.output):
        raise InvalidModelError(
            f"{call.op_type} node {call.name!r} gives function {function} {len(call.input)} inputs "
            f"and {len(call.output)} outputs, it has {len(proto.input)} and {len(proto.output)}"
        )
    names = dict.fromkeys(proto.input, "")
    names |= zip(proto.input, call.input, strict=False)
    outputs = {f: a for f, a in zip(proto.output, call.output, strict=False) if a}
    for formal, actual in outputs.items():
        if formal in names:
            yield onnx.helper.make_node("Identity", [names[formal]], [actual], f"{prefix}.{formal}")
    names = {**outputs, **names}
    given = {attribute.name: attribute for attribute in call.attribute}
    binder = _Binder(names, {**function.defaults, **given}, prefix)
    for index, node in enumerate(proto.node):
        yield binder.node(node, index)


@dataclass(frozen=True, slots=True)
class _Binder:
    """Renames values and puts attributes in place of references to them."""

    names: Mapping[str, str]
    attributes: Mapping[str, onnx.AttributeProto]
    prefix: str

    def name(self, name: str) -> str:
        if not name:
            return name
        return self.names.get(name, f"{self.prefix}.{name}")

    def node(self, proto: onnx.NodeProto, index: int) -> onnx.NodeProto:
        copied = onnx.NodeProto()
        copied.CopyFrom(proto)
        copied.name = f"{self.prefix}.{proto.name or f'{proto.op_type}_{index}'}"
        copied.input[:] = map(self.name, proto.input)
        copied.output[:] = map(self.name, proto.output)
        del copied.attribute[:]
        for attribute in proto.attribute:
            bound = self._attribute(attribute)
            if bound is not None:
                copied.attribute.append(bound)
        return copied

    def _attribute(self, proto: onnx.AttributeProto) -> onnx.AttributeProto | None:
        copied = onnx.AttributeProto()
        if proto.ref_attr_name:
            given = self.attributes.get(proto.ref_attr_name)
            if given is None:
                return None
            copied.CopyFrom(given)
            copied.name = proto.name
            return copied
        copied.CopyFrom(proto)
        if proto.HasField("g"):
            self._rename(copied.g)
        for graph in copied.graphs:
            self._rename(graph)
        return copied

    def _rename(self, graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = self.name(value.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = self.name(sparse.values.name)
        for index, node in enumerate(graph.node):
            node.CopyFrom(self.node(node, index))


def domain_of(domain: str) -> str:
    """ONNX's own domain has two spellings; here it is the empty one."""
    return "" if domain == "ai.onnx" else domain


def _opsets(proto: onnx.FunctionProto) -> dict[str, int]:
    return {domain_of(entry.domain): entry.version for entry in proto.opset_import}


def _newest(versions: Sequence[int], limit: int) -> int | None:
    return max((version for version in versions if version <= limit), default=None)
