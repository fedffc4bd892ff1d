"""Classes and probabilities from the scores of trees, linear models and support vectors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import sigmoid, softmax

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""Names of post transforms, in the order of TreeEnsemble-5's numbers."""


@dataclass(frozen=True, slots=True)
class PostTransform(Op):
    """Scores made probabilities, the attribute post_transform of ai.onnx.ml's operators.

    (n, scores) -> like it. SOFTMAX_ZERO leaves scores that are 0 at 0.
    """

    transform: str
    domain: ClassVar[str] = "mnnpy"

    def infer(self, scores: Value) -> tuple[Type, ...]:
        return (scores.tensor,)

    def reference(self, xp: ArrayModule, scores: Array) -> tuple[Array, ...]:
        if self.transform == "SOFTMAX":
            return (softmax(xp, scores, (1,)),)
        if self.transform == "LOGISTIC":
            return (sigmoid(xp, scores),)
        if self.transform == "SOFTMAX_ZERO":
            powers = xp.exp(scores - scores.max(axis=1, keepdims=True))
            powers = xp.where(scores == 0, 0, powers)
            total = xp.maximum(powers.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
            return ((powers / total).astype(scores.dtype),)
        if self.transform == "PROBIT":
            quantile = NormalDist().inv_cdf
            probits = [quantile(score) for score in scores.reshape(-1).tolist()]
            return (xp.asarray(probits, dtype=scores.dtype).reshape(scores.shape),)
        return (scores,)


@dataclass(frozen=True, slots=True)
class Classes(Op):
    """Class of every row from its scores: (n, scores) -> places of the classes (n,).

    The largest score's place; or, with a threshold, 1 where the last score is above it, else 0.
    """

    threshold: float | None = None
    domain: ClassVar[str] = "mnnpy"

    def infer(self, scores: Value) -> tuple[Type, ...]:
        return (TensorType(INT64, scores.shape[:1]),)

    def reference(self, xp: ArrayModule, scores: Array) -> tuple[Array, ...]:
        if self.threshold is None:
            return (xp.argmax(scores, axis=1).astype(INT64),)
        return ((scores[:, -1] > self.threshold).astype(INT64),)


@dataclass(frozen=True, slots=True)
class PairwiseProbabilities(Op):
    """Probabilities of classes from scores of pairs of them (Wu, Lin and Weng, 2004).

    (n, pairs), the pairs being (0, 1), (0, 2), ..., (1, 2), ... -> (n, count). Platt's sigmoid
    with ``slopes`` and ``shifts`` makes a probability of each score.
    """

    count: int
    slopes: tuple[float, ...]
    shifts: tuple[float, ...]
    domain: ClassVar[str] = "mnnpy"

    def infer(self, scores: Value) -> tuple[Type, ...]:
        return (TensorType(scores.dtype, (scores.shape[0], self.count)),)

    def reference(self, xp: ArrayModule, scores: Array) -> tuple[Array, ...]:
        bent = scores.astype(np.float64) * xp.asarray(self.slopes) + xp.asarray(self.shifts)
        likely = xp.clip(sigmoid(xp, -bent), 1e-7, 1 - 1e-7)
        r = xp.zeros((len(scores), self.count, self.count))
        for pair, (i, j) in enumerate(combinations(range(self.count), 2)):
            r[:, i, j], r[:, j, i] = likely[:, pair], 1 - likely[:, pair]
        return (self._coupled(xp, r).astype(scores.dtype),)

    def _coupled(self, xp: ArrayModule, r: Array) -> Array:
        """Probabilities p that fit r[i, j], that of class i among i and j: libsvm's iteration."""
        q = -r.swapaxes(1, 2) * r
        diagonal = xp.arange(self.count)
        q[:, diagonal, diagonal] = (r * r).sum(axis=1)
        p = xp.full(r.shape[:2], 1 / self.count)
        moving = xp.ones((len(r), 1), dtype=np.bool_)
        for _ in range(max(100, self.count)):
            qp = (q @ p[:, :, None])[:, :, 0]
            pqp = (p * qp).sum(axis=1, keepdims=True)
            moving = moving & (xp.abs(qp - pqp).max(axis=1, keepdims=True) >= 0.005 / self.count)
            if not moving.any():
                break
            for t in range(self.count):
                step = xp.where(moving, (pqp - qp[:, t : t + 1]) / q[:, t, t, None], 0)
                p[:, t : t + 1] += step
                pqp = pqp + step * (step * q[:, t, t, None] + 2 * qp[:, t : t + 1])
                pqp = pqp / (1 + step) ** 2
                qp, p = (qp + step * q[:, t]) / (1 + step), p / (1 + step)
        return p


OPERATORS: tuple[type[Op], ...] = (PostTransform, Classes, PairwiseProbabilities)
