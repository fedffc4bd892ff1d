"""Operators that only change shapes: reshaping, transposing, reading shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, SymbolicDim, UndecidedError, same
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.shape_math import normalize_axes, normalize_axis, product, reshaped


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """Same elements under another shape, ONNX Reshape-14."""

    allowzero: int = 0
    view: ClassVar[bool] = True
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, shape: Value) -> tuple[Type, ...]:
        if shape.known is None:
            (rank,) = shape.shape
            if not isinstance(rank, int):
                raise UndecidedError(f"a shape of {rank} dimensions")
            return (TensorType(x.dtype, (UNKNOWN,) * rank),)
        return (TensorType(x.dtype, reshaped(x.shape, shape.ints(), bool(self.allowzero))),)

    def reference(self, xp: ArrayModule, x: Array, shape: Array) -> tuple[Array, ...]:
        target = reshaped(x.shape, shape.tolist(), bool(self.allowzero))
        return (x.reshape(target),)


@dataclass(frozen=True, slots=True)
class Flatten(Op):
    """Matrix of the axes before and from ``axis`` on, ONNX Flatten-13."""

    axis: int = 1
    view: ClassVar[bool] = True

    def infer(self, x: Value) -> tuple[Type, ...]:
        axis = self.axis if self.axis == x.rank else normalize_axis(self.axis, x.rank)
        return (TensorType(x.dtype, (product(x.shape[:axis]), product(x.shape[axis:]))),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        axis = self.axis + x.ndim if self.axis < 0 else self.axis
        return (x.reshape(product(x.shape[:axis]), product(x.shape[axis:])),)


class Squeeze(Op):
    """Drop axes of size one, ONNX Squeeze-13."""

    __slots__ = ()
    view: ClassVar[bool] = True
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, axes: Value | None = None) -> tuple[Type, ...]:
        if axes is None:
            dropped = {axis for axis, dim in enumerate(x.shape) if same(dim, 1)}
        else:
            dropped = set(normalize_axes(axes.ints(), x.rank))
        wrong = [axis for axis in sorted(dropped) if isinstance(x.shape[axis], int)]
        if any(x.shape[axis] != 1 for axis in wrong):
            raise ShapeError(f"axes {sorted(dropped)} of {x.shape} are not all of size one")
        shape = tuple(dim for axis, dim in enumerate(x.shape) if axis not in dropped)
        return (TensorType(x.dtype, shape),)

    def reference(self, xp: ArrayModule, x: Array, axes: Array | None = None) -> tuple[Array, ...]:
        return (xp.squeeze(x, None if axes is None else tuple(int(a) for a in axes.tolist())),)


class Unsqueeze(Op):
    """Insert axes of size one, ONNX Unsqueeze-13."""

    __slots__ = ()
    view: ClassVar[bool] = True
    shape_inputs: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: Value, axes: Value) -> tuple[Type, ...]:
        added = axes.ints()
        rank = x.rank + len(added)
        places = set(normalize_axes(added, rank))
        rest = iter(x.shape)
        shape = tuple(1 if axis in places else next(rest) for axis in range(rank))
        return (TensorType(x.dtype, shape),)

    def reference(self, xp: ArrayModule, x: Array, axes: Array) -> tuple[Array, ...]:
        return (xp.expand_dims(x, tuple(int(a) for a in np.reshape(axes, -1).tolist())),)


@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Permute axes, reversed where ``perm`` is None, ONNX Transpose-13."""

    perm: tuple[int, ...] | None = None

    def axes(self, rank: int) -> tuple[int, ...]:
        """The permutation. Raises ``ShapeError`` where ``perm`` is not one of ``rank`` axes."""
        if self.perm is None:
            return tuple(reversed(range(rank)))
        perm = normalize_axes(self.perm, rank)
        if len(perm) != rank:
            raise ShapeError(f"perm {self.perm} does not permute {rank} axes")
        return perm

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(x.dtype, tuple(x.shape[axis] for axis in self.axes(x.rank))),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.transpose(x, self.axes(x.ndim)),)


@dataclass(frozen=True, slots=True)
class Shape(Op):
    """Dimensions from ``start`` to ``end`` as int64, ONNX Shape-15."""

    start: int = 0
    end: int | None = None

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(INT64, (len(x.shape[self.start : self.end]),)),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.asarray(x.shape[self.start : self.end], dtype=np.int64),)

    def content(self, inputs: Sequence[Value | None]) -> tuple[Array, ...] | None:
        (x,) = inputs
        assert x is not None
        return (dims_array(x.shape[self.start : self.end]),)


class Size(Op):
    """Number of elements as an int64 scalar, ONNX Size-13."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(INT64, ()),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.asarray(x.size, dtype=np.int64),)

    def content(self, inputs: Sequence[Value | None]) -> tuple[Array, ...] | None:
        (x,) = inputs
        assert x is not None
        return (dims_array((product(x.shape),)).reshape(()),)


def dims_array(dims: Sequence[int | SymbolicDim]) -> Array:
    """int64 array of dimensions; an object array where one is symbolic."""
    symbolic = any(isinstance(dim, SymbolicDim) for dim in dims)
    return np.array(dims, dtype=object if symbolic else np.int64)


OPERATORS: tuple[type[Op], ...] = (Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Shape, Size)
