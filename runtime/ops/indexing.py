"""Operators that read or write elements at indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.shape_math import normalize_axis


@dataclass(frozen=True, slots=True)
class Gather(Op):
    """Slices at indices of one axis, negative indices from the end, ONNX Gather-13.

    x : (*before, d, *after), indices : any shape -> (*before, *indices, *after).
    """

    axis: int = 0

    def infer(self, x: Value, indices: Value) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, x.rank)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
        return (TensorType(x.dtype, shape),)

    def reference(self, xp: ArrayModule, x: Array, indices: Array) -> tuple[Array, ...]:
        axis = normalize_axis(self.axis, x.ndim)
        rows = xp.take(x, indices.reshape(-1), axis=axis)
        return (rows.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)

    def view_offsets(
        self, inputs: Sequence[Value | None], outputs: Sequence[Type]
    ) -> tuple[int, ...] | None:
        x, indices = inputs
        (output,) = outputs
        assert x is not None and indices is not None and isinstance(output, TensorType)
        axis = normalize_axis(self.axis, x.rank)
        if not x.tensor.static or not indices.constant or indices.tensor.size != 1:
            return None
        if any(dim != 1 for dim in x.shape[:axis]):
            return None
        (place,), size = map(int, indices.ints()), int(x.shape[axis])
        return (place % size * output.size,) if -size <= place < size else None


@dataclass(frozen=True, slots=True)
class GatherElements(Op):
    """Elements at indices along one axis, ONNX GatherElements-13; output shaped like indices."""

    axis: int = 0

    def infer(self, x: Value, indices: Value) -> tuple[Type, ...]:
        _require_fitting(x.shape, indices.shape, normalize_axis(self.axis, x.rank))
        return (TensorType(x.dtype, indices.shape),)

    def reference(self, xp: ArrayModule, x: Array, indices: Array) -> tuple[Array, ...]:
        places = _element_places(xp, indices, normalize_axis(self.axis, x.ndim))
        return (x[places],)


@dataclass(frozen=True, slots=True)
class GatherND(Op):
    """Slices at index tuples, ONNX GatherND-13.

    x : (*batch, *indexed, *slice), indices : (*batch, *rows, k) -> (*batch, *rows, *slice), where
    k axes are indexed and ``batch_dims`` axes are batch.
    """

    batch_dims: int = 0

    def infer(self, x: Value, indices: Value) -> tuple[Type, ...]:
        depth = int(indices.shape[-1]) + self.batch_dims
        if depth > x.rank or not 0 <= self.batch_dims < min(x.rank, indices.rank):
            raise ShapeError(
                f"indices of shape {indices.shape} with {self.batch_dims} batch axes "
                f"do not index a tensor of shape {x.shape}"
            )
        return (TensorType(x.dtype, (*indices.shape[:-1], *x.shape[depth:])),)

    def reference(self, xp: ArrayModule, x: Array, indices: Array) -> tuple[Array, ...]:
        batch = x.shape[: self.batch_dims]
        rows = indices.ndim - 1 - self.batch_dims
        grid = tuple(place.reshape(place.shape + (1,) * rows) for place in _open_grid(xp, batch))
        return (x[grid + tuple(xp.moveaxis(indices, -1, 0))],)


@dataclass(frozen=True, slots=True)
class ScatterElements(Op):
    """A copy with elements replaced at, or combined with, indices along one axis.

    ONNX ScatterElements-18.
    """

    axis: int = 0
    reduction: str = "none"

    def infer(self, x: Value, indices: Value, updates: Value) -> tuple[Type, ...]:
        require_same_dtype(x, updates)
        _require_fitting(x.shape, indices.shape, normalize_axis(self.axis, x.rank))
        if any(map(differ, indices.shape, updates.shape)) or indices.rank != updates.rank:
            raise ShapeError(f"updates of shape {updates.shape} for indices {indices.shape}")
        return (x.tensor,)

    def reference(
        self, xp: ArrayModule, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, ...]:
        places = _element_places(xp, indices, normalize_axis(self.axis, x.ndim))
        return (_scattered(xp, x, places, updates, self.reduction),)


@dataclass(frozen=True, slots=True)
class ScatterND(Op):
    """A copy with slices replaced at, or reduced into, index tuples, ONNX ScatterND-18.

    x : (*indexed, *slice), indices : (*rows, k), updates : (*rows, *slice).
    """

    reduction: str = "none"

    def infer(self, x: Value, indices: Value, updates: Value) -> tuple[Type, ...]:
        require_same_dtype(x, updates)
        depth = int(indices.shape[-1])
        expected = (*indices.shape[:-1], *x.shape[depth:])
        if depth > x.rank or len(expected) != updates.rank:
            raise ShapeError(f"indices {indices.shape} and updates {updates.shape} for {x.shape}")
        if any(map(differ, expected, updates.shape)):
            raise ShapeError(f"updates must have shape {expected}, not {updates.shape}")
        return (x.tensor,)

    def reference(
        self, xp: ArrayModule, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, ...]:
        places = tuple(xp.moveaxis(indices, -1, 0))
        return (_scattered(xp, x, places, updates, self.reduction),)


@dataclass(frozen=True, slots=True)
class TensorScatter(Op):
    """A cache with new entries written along its sequence axis, ONNX TensorScatter-24.

    cache : (n, ..., length, ...), update : (n, ..., new, ...), start : (n,) or absent (zeros).
    """

    axis: int = -2
    mode: str = "linear"

    def infer(self, cache: Value, update: Value, start: Value | None = None) -> tuple[Type, ...]:
        require_same_dtype(cache, update)
        axis = normalize_axis(self.axis, cache.rank)
        if axis == 0 or cache.rank != update.rank:
            raise ShapeError(f"axis {axis} of a cache {cache.shape} and an update {update.shape}")
        for place, (whole, part) in enumerate(zip(cache.shape, update.shape, strict=True)):
            if differ(whole, part) and (place != axis or int(part) > int(whole)):
                raise ShapeError(f"an update {update.shape} does not fit a cache {cache.shape}")
        return (cache.tensor,)

    def reference(
        self, xp: ArrayModule, cache: Array, update: Array, start: Array | None = None
    ) -> tuple[Array, ...]:
        axis, n = normalize_axis(self.axis, cache.ndim), cache.shape[0]
        starts = xp.zeros(n, dtype=np.int64) if start is None else start
        places = starts.reshape(n, 1) + xp.arange(update.shape[axis])
        if self.mode == "circular":
            places = places % cache.shape[axis]
        # Sequence axis second, so that (n, new) index arrays address it with the batch.
        present = xp.moveaxis(cache.copy(), axis, 1)
        present[xp.arange(n).reshape(n, 1), places] = xp.moveaxis(update, axis, 1)
        return (xp.moveaxis(present, 1, axis),)


@dataclass(frozen=True, slots=True)
class OneHot(Op):
    """One new axis that is ``on`` at the index and ``off`` elsewhere, ONNX OneHot-11.

    indices : any shape, depth : one number, values : (off, on); negative indices from the end.
    """

    axis: int = -1
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, indices: Value, depth: Value, values: Value) -> tuple[Type, ...]:
        axis = normalize_axis(self.axis, indices.rank + 1)
        (count,) = (UNKNOWN,) if depth.known is None else depth.ints()
        shape = (*indices.shape[:axis], count, *indices.shape[axis:])
        return (TensorType(values.dtype, shape),)

    def reference(
        self, xp: ArrayModule, indices: Array, depth: Array, values: Array
    ) -> tuple[Array, ...]:
        axis = normalize_axis(self.axis, indices.ndim + 1)
        count = int(depth.reshape(()))
        classes = xp.arange(count).reshape(-1, *(1,) * (indices.ndim - axis))
        wanted = xp.expand_dims(indices.astype(np.int64), axis)
        hit = (wanted == classes) | (wanted + count == classes)
        return (xp.where(hit, values[1], values[0]),)


def _require_fitting(shape: Shape, indices: Shape, axis: int) -> None:
    if len(shape) != len(indices):
        raise ShapeError(f"indices {indices} must have the rank of the data {shape}")
    for place, (have, want) in enumerate(zip(shape, indices, strict=True)):
        if place != axis and differ(have, want) and int(want) > int(have):
            raise ShapeError(f"indices {indices} reach beyond the data {shape} at axis {place}")


def _open_grid(xp: ArrayModule, shape: tuple[int, ...]) -> list[Array]:
    """Index arrays 0..n-1, one per axis, that broadcast to ``shape``."""
    rank = len(shape)
    return [
        xp.arange(size).reshape((1,) * axis + (-1,) + (1,) * (rank - 1 - axis))
        for axis, size in enumerate(shape)
    ]


def _element_places(xp: ArrayModule, indices: Array, axis: int) -> tuple[Array, ...]:
    """Index arrays of the elements ``x[..., indices[p], ...]`` at every place p."""
    places = _open_grid(xp, indices.shape)
    places[axis] = indices
    return tuple(places)


_REDUCTIONS = {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


def _scattered(
    xp: ArrayModule, x: Array, places: tuple[Array, ...], updates: Array, reduction: str
) -> Array:
    y = x.copy()
    if reduction == "none":
        y[places] = updates
    elif reduction in _REDUCTIONS:
        _combine_at(xp, _REDUCTIONS[reduction], y, places, updates)
    else:
        raise ShapeError(f"reduction {reduction!r} is none of none, {', '.join(_REDUCTIONS)}")
    return y


def _combine_at(
    xp: ArrayModule, name: str, y: Array, places: tuple[Array, ...], updates: Array
) -> None:
    """``y[places] = f(y[places], updates)`` in which repeated places count every time."""
    function: Any = getattr(xp, name)
    if xp is np or name != "multiply":
        function.at(y, places, updates)
        return
    # CuPy's multiply has no ``at``: on the host, where the reference may be slow.
    host = y.get()
    np.multiply.at(host, tuple(place.get() for place in places), updates.get())
    y[...] = xp.asarray(host)


OPERATORS: tuple[type[Op], ...] = (
    *(Gather, GatherElements, GatherND, ScatterElements, ScatterND, TensorScatter, OneHot),
)
