"""What an importer sees of an ONNX node, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """An ONNX node with its attributes decoded.

    Parameters
    ----------
    version : the opset of the node's domain that the model imports.
    inputs : value names; None where an optional one is left out.
    outputs : value names; one left out in the middle has a name that nobody reads.
    attributes : int, float, str, tuples of these, NumPy array (tensors) or Graph (subgraphs).
    constants : content of every initialiser and Constant seen so far, by value name.
    """

    name: str
    domain: str
    op_type: str
    version: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Array]

    def __str__(self) -> str:
        return f"{self.op_type} node {self.name!r}"

    def input(self, index: int) -> str | None:
        """Name of an input, None where it is absent or beyond the end."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> Array | None:
        """Content of a constant input, else None."""
        name = self.input(index)
        return None if name is None else self.constants.get(name)

    def value_name(self, suffix: str) -> str:
        """A value name derived from the first output, for what the importer adds."""
        return f"{self.outputs[0]}.{suffix}"


@dataclass(frozen=True, slots=True)
class Imported:
    """Nodes and constants that stand for one ONNX node."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)


Importer: TypeAlias = Callable[[OnnxNode], Op | Imported]
"""Returns the operator where inputs and outputs stay as they are, else everything."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of an importer table: applies from opset ``since`` up to the next row's."""

    op_type: str
    since: int
    importer: Importer
    domain: str = ""


def direct(op_type: type[Op], *ignored: str, **renamed: str) -> Importer:
    """Importer that copies attributes into the operator's fields of the same name.

    Parameters
    ----------
    ignored : attributes of old opsets that carry no meaning.
    renamed : ONNX attribute name -> field name, where they differ.
    """
    return lambda node: build(op_type, node, ignored, renamed)


def build(
    op_type: type[Op],
    node: OnnxNode,
    ignored: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
    **given: Any,
) -> Op:
    """The operator with the node's attributes as fields; ``given`` fields win.

    Raises
    ------
    InvalidModelError
        On attributes that the operator does not have.
    """
    fields = {f.name for f in dataclasses.fields(op_type)}
    values: dict[str, Any] = {}
    for name, value in node.attributes.items():
        target = (renamed or {}).get(name, name)
        if target in fields:
            values.setdefault(target, value)
        elif name not in ignored:
            known = ", ".join(sorted(fields)) or "none"
            raise InvalidModelError(
                f"{node}: attribute {name!r} is not one of opset {node.version}'s ({known})"
            )
    return op_type(**{**values, **given})


def with_inputs(node: OnnxNode, op: Op, *inputs: str | Array | None) -> Imported:
    """One node whose inputs differ from the ONNX node's; arrays become constants."""
    names: list[str | None] = []
    constants: dict[str, Array] = {}
    for index, value in enumerate(inputs):
        if value is None or isinstance(value, str):
            names.append(value)
        else:
            name = node.value_name(f"input{index}")
            constants[name] = np.asarray(value)
            names.append(name)
    while names and names[-1] is None:
        names.pop()
    return Imported((Node(node.name, op, tuple(names), node.outputs),), constants)


def attributes_to_inputs(op_type: type[Op], *moved: str, dtype: Any = np.int64) -> Importer:
    """Importer for old opsets in which today's trailing inputs were attributes.

    ``moved`` names the attributes in the order in which they became inputs, after the inputs that
    the node has.
    """

    def importer(node: OnnxNode) -> Imported:
        rest = {k: v for k, v in node.attributes.items() if k not in moved}
        op = build(op_type, dataclasses.replace(node, attributes=rest))
        values = [node.attributes.get(name) for name in moved]
        arrays = [None if value is None else np.asarray(value, dtype=dtype) for value in values]
        return with_inputs(node, op, *node.inputs, *arrays)

    return importer
