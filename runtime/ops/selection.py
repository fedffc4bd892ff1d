"""Operators that select elements by their values, or by their place in a matrix or sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, STRING, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import normalize_axis, product


class NonZero(Op):
    """Indices of elements that are not zero, ONNX NonZero-13: x of rank r -> (r, count)."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(INT64, (x.rank, _count(x))),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        if x.ndim == 0:
            return (xp.zeros((0, int(bool(x))), dtype=np.int64),)
        return (xp.stack(xp.nonzero(x)).astype(np.int64),)


@dataclass(frozen=True, slots=True)
class Compress(Op):
    """Slices of an axis (or elements, where it is None) whose condition holds (Compress-28).

    A condition shorter than the axis drops the rest.
    """

    axis: int | None = None

    def infer(self, x: Value, condition: Value) -> tuple[Type, ...]:
        count: Dim = (
            int(np.count_nonzero(np.asarray(condition.known))) if condition.constant else UNKNOWN
        )
        if self.axis is None:
            return (TensorType(x.dtype, (count,)),)
        axis = normalize_axis(self.axis, x.rank)
        return (TensorType(x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :])),)

    def reference(self, xp: ArrayModule, x: Array, condition: Array) -> tuple[Array, ...]:
        places = xp.nonzero(condition)[0]
        if self.axis is None:
            return (xp.take(x.reshape(-1), places),)
        return (xp.take(x, places, axis=self.axis),)


@dataclass(frozen=True, slots=True)
class Unique(Op):
    """Distinct elements, or slices of an axis, ONNX Unique-28.

    -> the distinct values, index of their first occurrence, the distinct value of every element,
    occurrences; sorted, or in order of first occurrence.
    """

    axis: int | None = None
    sorted: int = 1

    def infer(self, x: Value) -> tuple[Type, ...]:
        if self.axis is None:
            inverse = product(x.shape)
            values = TensorType(x.dtype, (UNKNOWN,))
        else:
            axis = normalize_axis(self.axis, x.rank)
            inverse = x.shape[axis]
            values = TensorType(x.dtype, (*x.shape[:axis], UNKNOWN, *x.shape[axis + 1 :]))
        found = TensorType(INT64, (UNKNOWN,))
        return values, found, TensorType(INT64, (inverse,)), found

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        if self.axis is None:
            x = x.reshape(-1)
        axis = 0 if self.axis is None else normalize_axis(self.axis, x.ndim)
        rows = x.astype(str) if x.dtype == STRING else widen(x)
        found = xp.unique(
            rows, return_index=True, return_inverse=True, return_counts=True, axis=axis
        )
        first, inverse, counts = (part.reshape(-1).astype(np.int64) for part in found[1:])
        if not self.sorted:
            order = xp.argsort(first)
            rank = xp.empty_like(order)
            rank[order] = xp.arange(len(order))
            first, inverse, counts = first[order], rank[inverse], counts[order]
        return xp.take(x, first, axis=axis), first, inverse, counts


@dataclass(frozen=True, slots=True)
class Trilu(Op):
    """Upper or lower triangle of matrices, zero elsewhere, ONNX Trilu-14.

    x : (..., m, n), k : the diagonal, 0 where absent.
    """

    upper: int = 1

    def infer(self, x: Value, k: Value | None = None) -> tuple[Type, ...]:
        if x.rank < 2:
            raise ShapeError(f"Trilu takes matrices, not the shape {x.shape}")
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array, k: Array | None = None) -> tuple[Array, ...]:
        m, n = x.shape[-2:]
        offset = xp.arange(n) - xp.arange(m).reshape(-1, 1)
        diagonal = 0 if k is None else k.reshape(())
        kept = offset >= diagonal if self.upper else offset <= diagonal
        return (xp.where(kept, x, xp.zeros((), dtype=x.dtype)),)


@dataclass(frozen=True, slots=True)
class ReverseSequence(Op):
    """The first ``lengths[b]`` steps of every sequence reversed, ONNX ReverseSequence-28."""

    time_axis: int = 0
    batch_axis: int = 1

    def infer(self, x: Value, lengths: Value) -> tuple[Type, ...]:
        if {self.time_axis, self.batch_axis} != {0, 1} or x.rank < 2:
            raise ShapeError(f"axes {self.time_axis}, {self.batch_axis} of {x.shape}: need 0 and 1")
        if lengths.rank != 1 or differ(lengths.shape[0], x.shape[self.batch_axis]):
            raise ShapeError(f"lengths of shape {lengths.shape} for sequences {x.shape}")
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array, lengths: Array) -> tuple[Array, ...]:
        rows = xp.moveaxis(x, self.batch_axis, 0)
        step, length = xp.arange(rows.shape[1]), lengths.reshape(-1, 1)
        places = xp.where(step < length, length - 1 - step, step)
        y = rows[xp.arange(rows.shape[0]).reshape(-1, 1), places]
        return (xp.moveaxis(y, 0, self.batch_axis),)


def _count(x: Value) -> Dim:
    """Number of elements that are not zero, where the content is known."""
    return int(np.count_nonzero(np.asarray(x.known))) if x.constant else UNKNOWN


OPERATORS: tuple[type[Op], ...] = (NonZero, Compress, Unique, Trilu, ReverseSequence)
