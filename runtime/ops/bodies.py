"""What operators that run graphs share: running and inferring a body, joining types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, TypeAlias

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, SymbolicDim
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    STRING,
    Array,
    ArrayModule,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    UnknownType,
    Value,
)
from mnnpy.runtime.ops.shape_math import normalize_axis

Given: TypeAlias = Value | None
"""An input as ``infer`` sees it."""


class Control(Op):
    """Base of operators that run graphs.

    A body's inputs are its formal ones, then what it captures from around it, which the operator
    gets as its own last inputs.
    """

    __slots__ = ()

    bounded: ClassVar[bool] = False

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs that the operator runs."""
        raise NotImplementedError(self.kind)

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether no operator inside draws random numbers."""
        return all(node.op.deterministic for body in self.bodies for node in body.nodes)


def run_body(body: Graph, xp: ArrayModule, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a body, in order."""
    results = evaluate(body, xp, dict(zip(body.inputs, inputs, strict=True)))
    return tuple(results[name] for name in body.outputs)


def infer_body(body: Graph, inputs: Sequence[Given]) -> list[Value]:
    """What is known of a body's outputs, in order."""
    given = (Value(None) if value is None else value for value in inputs)
    values = infer_values(body, dict(zip(body.inputs, given, strict=True)))
    return [values[name] for name in body.outputs]


def settle(
    step: Callable[[Sequence[Type]], Sequence[Value]], types: Sequence[Type], first: int
) -> tuple[list[Type], Sequence[Value]]:
    """Types that states have in every iteration, and one iteration's results under them.

    ``step`` infers an iteration; its results hold the states from place ``first`` on.
    """
    settled = list(types)
    while True:
        results = step(settled)
        after = results[first : first + len(settled)]
        wider = [joined(old, type_or_unknown(new)) for old, new in zip(settled, after, strict=True)]
        if wider == settled:
            return settled, results
        settled = wider


def joined(a: Type, b: Type) -> Type:
    """The type of a value that has the type ``a`` or the type ``b``."""
    if a == b:
        return a
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.dtype == b.dtype and a.rank == b.rank:
            dims = (x if x == y else UNKNOWN for x, y in zip(a.shape, b.shape, strict=True))
            return TensorType(a.dtype, tuple(dims))
    elif isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(_joined_elements(a.element, b.element))
    elif isinstance(a, OptionalType) and isinstance(b, OptionalType):
        return OptionalType(_joined_elements(a.element, b.element))
    return UnknownType()


def _joined_elements(a: Type | None, b: Type | None) -> Type | None:
    element = UnknownType() if a is None or b is None else joined(a, b)
    return None if isinstance(element, UnknownType) else element


def stacked(element: Type, count: Dim, axis: int) -> Type:
    """Type of ``count`` tensors along a new axis."""
    if not isinstance(element, TensorType):
        return UnknownType()
    place = normalize_axis(axis, element.rank + 1)
    return TensorType(element.dtype, (*element.shape[:place], count, *element.shape[place:]))


def stack(xp: ArrayModule, values: Sequence[Array], axis: int = 0) -> Array:
    """Tensors along a new axis; strings on the host."""
    module = np if values[0].dtype == STRING else xp
    return module.stack(values, axis=axis)


def empty_stack(xp: ArrayModule, stack_type: Type) -> Array:
    """What a body collects that never ran: the sizes that nothing decided are zero."""
    if not isinstance(stack_type, TensorType):
        raise ShapeError("a body that never ran collects tensors whose type nothing decides")
    shape = tuple(dim if isinstance(dim, int) else 0 for dim in stack_type.shape)
    module = np if stack_type.dtype == STRING else xp
    return module.zeros(shape, dtype=stack_type.dtype)


def type_or_unknown(value: Given) -> Type:
    """The type of a value, as operators' results say it."""
    return UnknownType() if value is None or value.type is None else value.type


def value_of(known: Type) -> Value:
    """A value of which only the type is known."""
    return Value(None if isinstance(known, UnknownType) else known)


def symbols(values: Iterable[Given]) -> frozenset[str]:
    """Every symbol that types and contents mention."""
    found: set[str] = set()
    for value in values:
        if value is None:
            continue
        dims = list(value.type.shape) if isinstance(value.type, TensorType) else []
        if value.known is not None and value.known.dtype == object:
            dims += value.known.reshape(-1).tolist()
        found |= {name for dim in dims if isinstance(dim, SymbolicDim) for name, _ in dim.terms}
    return frozenset(found)


def outward(inner: Type, outer: frozenset[str]) -> Type:
    """A result's type without the symbols that a body made up for sizes known only inside."""
    if isinstance(inner, TensorType):
        shape = tuple(UNKNOWN if is_foreign(dim, outer) else dim for dim in inner.shape)
        return TensorType(inner.dtype, shape)
    if isinstance(inner, SequenceType | OptionalType) and inner.element is not None:
        return type(inner)(outward(inner.element, outer))
    return inner


def is_foreign(dim: object, outer: frozenset[str]) -> bool:
    """Whether a dimension mentions a symbol that inference made up (``name[axis]``) in a body."""
    names = (name for name, _ in dim.terms) if isinstance(dim, SymbolicDim) else ()
    return any(("[" in name or "?" in name) and name not in outer for name in names)
