"""What an importer sees of an ONNX node, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mnnpy.runtime.errors import InvalidModelError, UnsupportedOperatorError
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, TensorType, Type
from mnnpy.runtime.ops.casting import CastLike


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
    type_of : what the nodes before this one tell of a value's type; None where that is nothing.
    """

    name: str
    domain: str
    op_type: str
    version: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Array]
    type_of: Callable[[str], Type | None]

    def __str__(self) -> str:
        return f"{self.op_type} node {self.name!r}"

    def input(self, index: int) -> str | None:
        """Name of an input, None where it is absent or beyond the end."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> Array | None:
        """Content of a constant input, else None."""
        name = self.input(index)
        return None if name is None else self.constants.get(name)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the inputs that are there."""
        return tuple(name for name in self.inputs if name is not None)

    def require_input(self, index: int) -> str:
        """Name of an input. Raises ``InvalidModelError`` where it is absent."""
        name = self.input(index)
        if name is None:
            raise InvalidModelError(f"{self}: input {index} is left out")
        return name

    def output(self, index: int) -> str | None:
        """Name of an output, None where the node has fewer."""
        return self.outputs[index] if index < len(self.outputs) else None

    def tensor(self, index: int) -> TensorType | None:
        """Type of a tensor input as far as the nodes before tell."""
        name = self.input(index)
        found = None if name is None else self.type_of(name)
        return found if isinstance(found, TensorType) else None

    def require_tensor(self, index: int) -> TensorType:
        """Type of an input. Raises ``UnsupportedOperatorError`` where it is not known."""
        found = self.tensor(index)
        if found is None:
            raise UnsupportedOperatorError(
                f"{self}: what it does depends on the shape of input {index} "
                f"({self.input(index)!r}), which the nodes before it do not tell"
            )
        return found

    def require_size(self, index: int, axis: int) -> int:
        """A dimension of an input. Raises ``UnsupportedOperatorError`` where it is no number."""
        tensor = self.require_tensor(index)
        size = tensor.shape[axis]
        if not isinstance(size, int):
            raise UnsupportedOperatorError(
                f"{self}: input {index} is {tensor}, the size of its axis {axis} must be a number"
            )
        return size

    def value_name(self, suffix: str) -> str:
        """A value name derived from the first output, for what the importer adds."""
        return f"{self.outputs[0]}.{suffix}"


@dataclass(frozen=True, slots=True)
class Imported:
    """Nodes and constants that stand for one ONNX node."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)


class Composition:
    """Nodes and constants that stand for one ONNX node, written as calls."""

    def __init__(self, node: OnnxNode) -> None:
        self._node = node
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}

    def __call__(self, op: Op, *inputs: str | Array | None, into: str | None = None) -> str:
        """Apply an operator of one output; the name of the result, ``into`` where it is given.

        Arrays among the inputs become constants.
        """
        name = into or self._fresh(type(op).__name__)
        self.write(op, inputs, (name,))
        return name

    def several(self, count: int, op: Op, *inputs: str | Array | None) -> tuple[str, ...]:
        """Apply an operator; the names of its first ``count`` outputs."""
        names = tuple(self._fresh(f"{type(op).__name__}{place}_") for place in range(count))
        self.write(op, inputs, names)
        return names

    def write(
        self, op: Op, inputs: Sequence[str | Array | None], outputs: Sequence[str]
    ) -> Imported:
        """Apply an operator whose outputs have these names; all that there is so far."""
        names = [self._named(value) for value in inputs]
        while names and names[-1] is None:
            names.pop()
        self._nodes.append(Node(self._node.name, op, tuple(names), tuple(outputs)))
        return self.imported

    def result(self, op: Op, *inputs: str | Array | None) -> Imported:
        """Apply the operator that gives the ONNX node's first output; all that there is."""
        return self.write(op, inputs, self._node.outputs[:1])

    def scalar(self, number: float, like: str) -> str:
        """A number of the element type that a value of the graph has."""
        known = self._node.type_of(like)
        if isinstance(known, TensorType):
            return self._constant(np.asarray(number, dtype=known.dtype))
        return self(CastLike(), np.asarray(number, dtype=np.float32), like)

    @property
    def imported(self) -> Imported:
        return Imported(tuple(self._nodes), self._constants)

    def _named(self, value: str | Array | None) -> str | None:
        return value if value is None or isinstance(value, str) else self._constant(value)

    def _constant(self, array: Array) -> str:
        name = self._fresh("constant")
        self._constants[name] = np.asarray(array)
        return name

    def _fresh(self, what: str) -> str:
        return self._node.value_name(f"{what}{len(self._nodes) + len(self._constants)}")


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
