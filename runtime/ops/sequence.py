"""Sequences (Python lists) and optionals (the element or None)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, UndecidedError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    BOOL,
    INT64,
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
from mnnpy.runtime.ops.bodies import (
    Control,
    Given,
    infer_body,
    joined,
    outward,
    run_body,
    stack,
    stacked,
    symbols,
    type_or_unknown,
    value_of,
)
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axis


@dataclass(frozen=True, slots=True)
class SequenceEmpty(Op):
    """A sequence without elements, ONNX SequenceEmpty-11."""

    dtype: str = "float32"

    def infer(self) -> tuple[Type, ...]:
        return (SequenceType(None),)

    def reference(self, xp: ArrayModule) -> tuple[Array, ...]:
        return ([],)


class SequenceConstruct(Op):
    """A sequence of the inputs, ONNX SequenceConstruct-11."""

    __slots__ = ()

    def infer(self, *xs: Value) -> tuple[Type, ...]:
        return (_sequence(reduce(joined, map(type_or_unknown, xs))),)

    def reference(self, xp: ArrayModule, *xs: Array) -> tuple[Array, ...]:
        return (list(xs),)


class SequenceInsert(Op):
    """A sequence with one more element, at the end without a position, ONNX SequenceInsert-11."""

    __slots__ = ()

    def infer(self, xs: Value, x: Value, position: Given = None) -> tuple[Type, ...]:
        return (_sequence(joined(_element(xs), type_or_unknown(x))),)

    def reference(
        self, xp: ArrayModule, xs: list[Array], x: Array, position: Array | None = None
    ) -> tuple[Array, ...]:
        place = len(xs) if position is None else _place(position, len(xs) + 1, len(xs))
        return ([*xs[:place], x, *xs[place:]],)


class SequenceErase(Op):
    """A sequence with one element less, the last without a position, ONNX SequenceErase-11."""

    __slots__ = ()

    def infer(self, xs: Value, position: Given = None) -> tuple[Type, ...]:
        return (_sequence(_element(xs)),)

    def reference(
        self, xp: ArrayModule, xs: list[Array], position: Array | None = None
    ) -> tuple[Array, ...]:
        place = len(xs) - 1 if position is None else _place(position, len(xs), len(xs))
        return ([*xs[:place], *xs[place + 1 :]],)


class SequenceAt(Op):
    """The element at a position, ONNX SequenceAt-11."""

    __slots__ = ()

    def infer(self, xs: Value, position: Value) -> tuple[Type, ...]:
        return (_element(xs),)

    def reference(self, xp: ArrayModule, xs: list[Array], position: Array) -> tuple[Array, ...]:
        return (xs[_place(position, len(xs), len(xs))],)


class SequenceLength(Op):
    """Number of elements as an int64 scalar, ONNX SequenceLength-11."""

    __slots__ = ()

    def infer(self, xs: Value) -> tuple[Type, ...]:
        return (TensorType(INT64, ()),)

    def reference(self, xp: ArrayModule, xs: list[Array]) -> tuple[Array, ...]:
        return (xp.asarray(len(xs), dtype=np.int64),)


@dataclass(frozen=True, slots=True)
class SplitToSequence(Op):
    """Pieces along an axis as a sequence, ONNX SplitToSequence-24.

    A scalar ``split`` is the size of every piece but a smaller last one, a vector gives all sizes.
    Without it the pieces have size one, and no axis where ``keepdims`` is 0.
    """

    axis: int = 0
    keepdims: int = 1

    def infer(self, x: Value, split: Given = None) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, x.rank)
        before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        if split is None and not self.keepdims:
            return (SequenceType(TensorType(x.dtype, (*before, *after))),)
        sizes: set[Dim] = {UNKNOWN}
        if split is None:
            sizes = {1}
        elif split.known is not None and isinstance(length, int):
            sizes = set(_piece_sizes(length, split.known))
        size = sizes.pop() if len(sizes) == 1 else UNKNOWN
        return (SequenceType(TensorType(x.dtype, (*before, size, *after))),)

    def reference(self, xp: ArrayModule, x: Array, split: Array | None = None) -> tuple[Array, ...]:
        axis = normalize_axis(self.axis, x.ndim)
        rows = xp.moveaxis(x, axis, 0)
        if split is None and not self.keepdims:
            return (list(rows),)
        pieces, start = [], 0
        for size in _piece_sizes(x.shape[axis], np.array(1) if split is None else split):
            pieces.append(xp.moveaxis(rows[start : start + size], 0, axis))
            start += size
        return (pieces,)


def _piece_sizes(length: int, split: Array) -> tuple[int, ...]:
    if split.ndim == 0:
        size = int(split)
        return tuple(min(size, length - start) for start in range(0, length, size))
    if sum(as_ints(split)) != length:
        raise ShapeError(f"pieces {as_ints(split)} do not add up to {length}")
    return as_ints(split)


@dataclass(frozen=True, slots=True)
class ConcatFromSequence(Op):
    """The elements joined along an axis, a new one where ``new_axis`` (ConcatFromSequence-11)."""

    axis: int
    new_axis: int = 0

    def infer(self, xs: Value) -> tuple[Type, ...]:
        element = _element(xs)
        if self.new_axis:
            return (stacked(element, UNKNOWN, self.axis),)
        if not isinstance(element, TensorType):
            return (UnknownType(),)
        shape: list[Dim] = list(element.shape)
        shape[normalize_axis(self.axis, element.rank)] = UNKNOWN
        return (TensorType(element.dtype, tuple(shape)),)

    def reference(self, xp: ArrayModule, xs: list[Array]) -> tuple[Array, ...]:
        if not xs:
            raise ShapeError("an empty sequence cannot be joined")
        if self.new_axis:
            return (stack(xp, xs, self.axis),)
        module = np if xs[0].dtype == STRING else xp
        return (module.concatenate(xs, axis=self.axis),)


@dataclass(frozen=True, slots=True)
class SequenceMap(Control):
    """A graph run on every element of a sequence, ONNX SequenceMap-17.

    The first of the ``formal`` inputs is a sequence; the others are sequences of its length or
    tensors, which every run gets whole. Captured values follow. Every output is a sequence.
    """

    body: Graph
    formal: int

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def infer(self, *inputs: Given) -> tuple[Type, ...]:
        elements = [
            value_of(_element(value)) if value and isinstance(value.type, SequenceType) else value
            for value in inputs[: self.formal]
        ]
        outer = symbols(inputs)
        results = infer_body(self.body, (*elements, *inputs[self.formal :]))
        return tuple(_sequence(outward(type_or_unknown(value), outer)) for value in results)

    def reference(self, xp: ArrayModule, *inputs: Any) -> tuple[Array, ...]:
        formal, captured = inputs[: self.formal], inputs[self.formal :]
        runs = [
            run_body(
                self.body,
                xp,
                (*(x[place] if isinstance(x, list) else x for x in formal), *captured),
            )
            for place in range(len(formal[0]))
        ]
        return tuple([run[place] for run in runs] for place in range(len(self.body.outputs)))


class Optional(Op):
    """The input as an optional, an empty one where it is absent, ONNX Optional-28."""

    __slots__ = ()

    def infer(self, x: Given = None) -> tuple[Type, ...]:
        return (OptionalType(None if x is None else x.type),)

    def reference(self, xp: ArrayModule, x: Any = None) -> tuple[Any, ...]:
        return (x,)


class OptionalHasElement(Op):
    """Whether an optional holds something; tensors and sequences do (OptionalHasElement-28)."""

    __slots__ = ()

    def infer(self, x: Given = None) -> tuple[Type, ...]:
        return (TensorType(BOOL, ()),)

    def content(self, inputs: Sequence[Given]) -> tuple[Array, ...] | None:
        if not inputs or inputs[0] is None:
            return (np.array(False),)
        surely = isinstance(inputs[0].type, TensorType | SequenceType)
        return (np.array(True),) if surely else None

    def reference(self, xp: ArrayModule, x: Any = None) -> tuple[Any, ...]:
        return (xp.asarray(x is not None),)


class OptionalGetElement(Op):
    """What an optional holds; tensors and sequences hold themselves (OptionalGetElement-28)."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        if isinstance(x.type, OptionalType):
            return (x.type.element or UnknownType(),)
        return (type_or_unknown(x),)

    def reference(self, xp: ArrayModule, x: Any) -> tuple[Any, ...]:
        if x is None:
            raise ShapeError("the optional is empty")
        return (x,)


def _sequence(element: Type) -> SequenceType:
    return SequenceType(None if isinstance(element, UnknownType) else element)


def _element(xs: Value) -> Type:
    if not isinstance(xs.type, SequenceType):
        raise UndecidedError(f"no sequence type: {xs.type}")
    return xs.type.element or UnknownType()


def _place(position: Array, size: int, length: int) -> int:
    """Position counted from the front, below ``size``; negative ones count from ``length`` back."""
    place = int(position.reshape(()))
    if not -length <= place < size:
        raise ShapeError(f"position {place} in a sequence of {length}")
    return place + length if place < 0 else place


OPERATORS: tuple[type[Op], ...] = (
    *(SequenceEmpty, SequenceConstruct, SequenceInsert, SequenceErase, SequenceAt, SequenceLength),
    *(SplitToSequence, ConcatFromSequence, SequenceMap),
    *(Optional, OptionalHasElement, OptionalGetElement),
)
