"""A graph as text, to be read and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value, dtype_name


def describe(graph: Graph) -> str:
    """Inputs, nodes with their attributes and output types, outputs and constants, a line each."""
    values = infer_values(graph)
    lines = [f"graph {graph.name!r}: {len(graph.nodes)} nodes, {len(graph.constants)} constants"]
    lines += [f"input {name}: {declared}" for name, declared in graph.inputs.items()]
    lines += [_node_line(node, values) for node in graph.nodes]
    lines += [f"output {name}: {values[name].type or '?'}" for name in graph.outputs]
    lines += [
        f"constant {name}: {dtype_name(array.dtype)}{array.shape}"
        for name, array in graph.constants.items()
    ]
    return "\n".join(lines) + "\n"


def _node_line(node: Node, values: Mapping[str, Value]) -> str:
    inputs = ", ".join(name or "-" for name in node.inputs)
    outputs = ", ".join(f"{name}: {values[name].type or '?'}" for name in node.outputs)
    return f"{outputs} = {node.op.kind}({inputs}){_attributes(node.op)}  # {node.name}"


def _attributes(op: Op) -> str:
    """Attributes that differ from their defaults, in braces."""
    shown = [
        f"{field.name}={getattr(op, field.name)!r}"
        for field in dataclasses.fields(op)
        if getattr(op, field.name) != field.default
    ]
    return f" {{{', '.join(shown)}}}" if shown else ""
