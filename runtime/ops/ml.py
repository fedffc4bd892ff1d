"""Operators of the domain ai.onnx.ml on labels and features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    STRING,
    Array,
    ArrayModule,
    SequenceType,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.shape_math import product

Label: TypeAlias = int | float | str


@dataclass(frozen=True, slots=True)
class LabelEncoder(Op):
    """Every key replaced by its value, anything else by the default, ml.LabelEncoder-4.

    NaN finds the key NaN; of equal keys the last counts. ``dtype`` is that of the values.
    """

    keys: tuple[Label, ...]
    values: tuple[Label, ...]
    default: Label
    dtype: str
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(DTYPES[self.dtype], x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        table = {_key(key): value for key, value in zip(self.keys, self.values, strict=True)}
        found = [table.get(_key(key), self.default) for key in x.reshape(-1).tolist()]
        labels = np.empty(len(found), dtype=DTYPES[self.dtype])
        labels[:] = found
        labels = labels.reshape(x.shape)
        return (labels if labels.dtype == STRING else xp.asarray(labels),)


def _key(label: Label) -> Label | None:
    """The label itself; None for NaN, which does not equal itself."""
    return label if label == label else None


class ArrayFeatureExtractor(Op):
    """Columns of the last axis, ml.ArrayFeatureExtractor-1; a vector counts as one row."""

    __slots__ = ()
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value, indices: Value) -> tuple[Type, ...]:
        rows = x.shape[:-1] if x.rank > 1 else (1,)
        return (TensorType(x.dtype, (*rows, product(indices.shape))),)

    def reference(self, xp: ArrayModule, x: Array, indices: Array) -> tuple[Array, ...]:
        rows = x if x.ndim > 1 else x.reshape(1, -1)
        return (xp.take(rows, indices.reshape(-1), axis=-1),)


@dataclass(frozen=True, slots=True)
class Binarizer(Op):
    """1 where above the threshold, else 0, ml.Binarizer-1."""

    threshold: float = 0.0
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return ((x > self.threshold).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class OneHotEncoder(Op):
    """Per element a row with 1 at its category, else 0, ml.OneHotEncoder-1.

    (*shape) -> float32 (*shape, categories). Without ``zeros``, every element is of a category.
    """

    categories: tuple[int, ...] | tuple[str, ...]
    zeros: int = 1
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(FLOAT32, (*x.shape, len(self.categories))),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        categories = np.asarray(self.categories, dtype=STRING if x.dtype == STRING else None)
        found = x[..., None] == xp.asarray(categories)
        if not self.zeros and not found.any(axis=-1).all():
            raise ShapeError("an element is of no category, and zeros is 0")
        return (found.astype(FLOAT32),)


@dataclass(frozen=True, slots=True)
class Imputer(Op):
    """Missing features replaced, ml.Imputer-1: (n, features) -> like it.

    ``replaced`` (NaN, say) stands for what is missing; ``imputed`` has one value or one per
    feature.
    """

    imputed: tuple[float, ...] | tuple[int, ...]
    replaced: float | int
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        missing = xp.isnan(x) if self.replaced != self.replaced else x == self.replaced
        return (xp.where(missing, xp.asarray(self.imputed, dtype=x.dtype), x),)


@dataclass(frozen=True, slots=True)
class Normalizer(Op):
    """Rows over their largest element, sum or length, ml.Normalizer-1; float32 out."""

    norm: str = "MAX"
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        if self.norm not in ("MAX", "L1", "L2"):
            raise ShapeError(f"norm {self.norm!r} is none of MAX, L1, L2")
        return (TensorType(FLOAT32, x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        x = x.astype(FLOAT32)
        size = xp.absolute(x)
        if self.norm == "MAX":
            norm = x.max(axis=-1, keepdims=True)
        elif self.norm == "L1":
            norm = size.sum(axis=-1, keepdims=True)
        else:
            norm = xp.sqrt((size * size).sum(axis=-1, keepdims=True))
        return (x / xp.where(norm == 0, xp.ones_like(norm), norm),)


@dataclass(frozen=True, slots=True)
class ZipMap(Op):
    """Per row a mapping from class to score, ml.ZipMap-1: (n, classes) -> list of dicts.

    The list is a sequence whose elements are no tensors: nothing but the caller reads it.
    """

    classes: tuple[int, ...] | tuple[str, ...]
    domain: ClassVar[str] = "ai.onnx.ml"
    host_only: ClassVar[bool] = True

    def infer(self, x: Value) -> tuple[Type, ...]:
        if differ(x.shape[-1], len(self.classes)):
            raise ShapeError(f"{len(self.classes)} classes for scores of shape {x.shape}")
        return (SequenceType(None),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        rows = x.reshape(-1, len(self.classes)).tolist()
        return ([dict(zip(self.classes, row, strict=True)) for row in rows],)


OPERATORS: tuple[type[Op], ...] = (
    *(LabelEncoder, ArrayFeatureExtractor, Binarizer),
    *(OneHotEncoder, Imputer, Normalizer, ZipMap),
)
