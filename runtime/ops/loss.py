"""Losses.

Floats narrower than 32 bits are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import log_softmax, widen


@dataclass(frozen=True, slots=True)
class ClassLoss(Op):
    """Base of losses of scores for classes: scores (n, c, *d), labels (n, *d), weights (c,).

    Labels equal to ``ignore_index`` do not count. ``reduction`` is "none" (result of the labels'
    shape), "sum" or "mean" (weighted; scalars).
    """

    reduction: str = "mean"
    ignore_index: int | None = None

    def loss_type(self, scores: Value, labels: Value, weights: Value | None) -> TensorType:
        """Type of the loss. Raises ``ShapeError`` where the inputs do not fit together."""
        outer = (*scores.shape[:1], *scores.shape[2:])
        if scores.rank < 2 or labels.rank != len(outer) or any(map(differ, labels.shape, outer)):
            raise ShapeError(f"labels of shape {labels.shape} for scores of shape {scores.shape}")
        if weights is not None and (weights.rank != 1 or differ(weights.shape[0], scores.shape[1])):
            raise ShapeError(f"weights of shape {weights.shape} for {scores.shape[1]} classes")
        return TensorType(scores.dtype, labels.shape if self.reduction == "none" else ())

    def loss(self, xp: ArrayModule, log_prob: Array, labels: Array, weights: Array | None) -> Array:
        """Negative log-probability of the labels, weighted and reduced."""
        ignored = xp.zeros(labels.shape, dtype=bool)
        if self.ignore_index is not None:
            ignored = labels == self.ignore_index
        classes = xp.where(ignored, 0, labels)
        picked = xp.take_along_axis(log_prob, xp.expand_dims(classes, 1), axis=1)[:, 0]
        share = xp.ones_like(picked) if weights is None else widen(weights)[classes]
        share = xp.where(ignored, 0, share)
        loss = xp.where(ignored, 0, -picked * share)
        if self.reduction == "none":
            return loss
        return xp.sum(loss) / xp.sum(share) if self.reduction == "mean" else xp.sum(loss)


class NegativeLogLikelihoodLoss(ClassLoss):
    """Loss of log-probabilities, ONNX NegativeLogLikelihoodLoss-22."""

    __slots__ = ()

    def infer(self, scores: Value, labels: Value, weights: Value | None = None) -> tuple[Type, ...]:
        return (self.loss_type(scores, labels, weights),)

    def reference(
        self, xp: ArrayModule, scores: Array, labels: Array, weights: Array | None = None
    ) -> tuple[Array, ...]:
        return (self.loss(xp, widen(scores), labels, weights).astype(scores.dtype),)


class SoftmaxCrossEntropyLoss(ClassLoss):
    """Loss of unscaled scores, and their log-probabilities, ONNX SoftmaxCrossEntropyLoss-13."""

    __slots__ = ()

    def infer(self, scores: Value, labels: Value, weights: Value | None = None) -> tuple[Type, ...]:
        return (self.loss_type(scores, labels, weights), scores.tensor)

    def reference(
        self, xp: ArrayModule, scores: Array, labels: Array, weights: Array | None = None
    ) -> tuple[Array, ...]:
        log_prob = log_softmax(xp, widen(scores), (1,))
        loss = self.loss(xp, log_prob, labels, weights)
        return loss.astype(scores.dtype), log_prob.astype(scores.dtype)


OPERATORS: tuple[type[Op], ...] = (NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss)
