"""Operators of the domain ai.onnx.ml: labels, features and trees."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, TypeAlias

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import DTYPES, STRING, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import sigmoid, softmax
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
class TreeEnsemble(Op):
    """Votes of decision trees, ml.TreeEnsemble-5.

    x : (n, features) -> (n, n_targets). Attributes are those of ONNX; ``members`` lists the set of
    every node, empty where its mode is not 6 (membership).
    """

    n_targets: int
    tree_roots: tuple[int, ...]
    nodes_modes: tuple[int, ...]
    nodes_featureids: tuple[int, ...]
    nodes_splits: tuple[float, ...]
    nodes_truenodeids: tuple[int, ...]
    nodes_trueleafs: tuple[int, ...]
    nodes_falsenodeids: tuple[int, ...]
    nodes_falseleafs: tuple[int, ...]
    leaf_targetids: tuple[int, ...]
    leaf_weights: tuple[float, ...]
    nodes_missing_value_tracks_true: tuple[int, ...] = ()
    members: tuple[tuple[float, ...], ...] = ()
    aggregate_function: int = 1
    post_transform: int = 0
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank != 2:
            raise ShapeError(f"features of shape {x.shape}: need (n, features)")
        shape: tuple[Dim, ...] = (x.shape[0], self.n_targets)
        return (TensorType(x.dtype, shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        weights = xp.asarray(self.leaf_weights, dtype=x.dtype)
        targets = xp.asarray(self.leaf_targetids)
        rows = xp.arange(len(x))
        votes = xp.zeros((len(self.tree_roots), len(x), self.n_targets), dtype=x.dtype)
        voted = xp.zeros(votes.shape, dtype=np.bool_)
        for tree, root in enumerate(self.tree_roots):
            leaf = self._leaves(xp, x, root)
            votes[tree, rows, targets[leaf]] = weights[leaf]
            voted[tree, rows, targets[leaf]] = True
        return (self._transformed(xp, self._aggregated(xp, votes, voted)).astype(x.dtype),)

    def _leaves(self, xp: ArrayModule, x: Array, root: int) -> Array:
        """Leaf that every row of ``x`` reaches in one tree."""
        true = xp.asarray((self.nodes_truenodeids, self.nodes_trueleafs))
        false = xp.asarray((self.nodes_falsenodeids, self.nodes_falseleafs))
        place = xp.full(len(x), root)
        at_leaf = xp.zeros(len(x), dtype=np.bool_)
        while not at_leaf.all():
            node = xp.where(at_leaf, root, place)
            step, is_leaf = xp.where(self._branches(xp, x, node), true[:, node], false[:, node])
            place = xp.where(at_leaf, place, step)
            at_leaf = at_leaf | (is_leaf != 0)
        return place

    def _branches(self, xp: ArrayModule, x: Array, node: Array) -> Array:
        """Whether every row takes the true branch of its node."""
        value = x[xp.arange(len(x)), xp.asarray(self.nodes_featureids)[node]]
        split = xp.asarray(self.nodes_splits, dtype=x.dtype)[node]
        width = max(map(len, self.members), default=0)
        padded = [(*given, *(np.nan,) * (width - len(given))) for given in self.members]
        table = xp.asarray(padded or [()] * len(self.nodes_modes), dtype=x.dtype)
        member = (value[:, None] == table[node]).any(axis=1)
        order = (value <= split, value < split, value >= split, value > split)
        tests = xp.stack([*order, value == split, value != split, member])
        taken = tests[xp.asarray(self.nodes_modes)[node], xp.arange(len(x))]
        missing = self.nodes_missing_value_tracks_true or (0,) * len(self.nodes_modes)
        return xp.where(xp.isnan(value), xp.asarray(missing)[node] != 0, taken)

    def _aggregated(self, xp: ArrayModule, votes: Array, voted: Array) -> Array:
        if self.aggregate_function in (0, 1):
            total = votes.sum(axis=0)
            return total / len(self.tree_roots) if self.aggregate_function == 0 else total
        least = self.aggregate_function == 2
        counted = xp.where(voted, votes, np.inf if least else -np.inf)
        found = counted.min(axis=0) if least else counted.max(axis=0)
        return xp.where(voted.any(axis=0), found, 0)

    def _transformed(self, xp: ArrayModule, scores: Array) -> Array:
        if self.post_transform == 1:
            return softmax(xp, scores, (1,))
        if self.post_transform == 2:
            return sigmoid(xp, scores)
        if self.post_transform == 3:
            powers = xp.where(scores == 0, 0, xp.exp(scores - scores.max(axis=1, keepdims=True)))
            return powers / xp.maximum(powers.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        if self.post_transform == 4:
            quantile = NormalDist().inv_cdf
            probits = [quantile(score) for score in scores.reshape(-1).tolist()]
            return xp.asarray(probits, dtype=scores.dtype).reshape(scores.shape)
        return scores


OPERATORS: tuple[type[Op], ...] = (LabelEncoder, ArrayFeatureExtractor, Binarizer, TreeEnsemble)
