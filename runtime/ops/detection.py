"""Selecting boxes that objects were found in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import on_host


@dataclass(frozen=True, slots=True)
class NonMaxSuppression(Op):
    """Best boxes that do not overlap a better one, ONNX NonMaxSuppression-11.

    boxes : (n, boxes, 4), two opposite corners (y, x, y, x) or with ``center_point_box``
    (x, y, width, height); scores : (n, classes, boxes); scalars: most boxes per class (default 0),
    largest overlap (intersection over union, default 0), least score, exclusive
    -> (selected, 3) int64: batch, class, box. Computed on the host.
    """

    center_point_box: int = 0

    host_only: ClassVar[bool] = True

    def infer(
        self,
        boxes: Value,
        scores: Value,
        most: Value | None = None,
        overlap: Value | None = None,
        least: Value | None = None,
    ) -> tuple[Type, ...]:
        fits = boxes.rank == scores.rank == 3
        if not fits or differ(boxes.shape[2], 4) or differ(boxes.shape[1], scores.shape[2]):
            raise ShapeError(f"boxes of shape {boxes.shape} with scores of shape {scores.shape}")
        return (TensorType(INT64, (UNKNOWN, 3)),)

    def reference(
        self,
        xp: ArrayModule,
        boxes: Array,
        scores: Array,
        most: Array | None = None,
        overlap: Array | None = None,
        least: Array | None = None,
    ) -> tuple[Array, ...]:
        limit = 0 if most is None else int(most.reshape(()))
        bound = 0.0 if overlap is None else float(overlap.reshape(()))
        lowest = -np.inf if least is None else float(least.reshape(()))
        corners = self._corners(on_host(boxes))
        selected = [
            (n, c, box)
            for n, rows in enumerate(on_host(scores))
            for c, row in enumerate(rows)
            for box in select_boxes(corners[n], row, limit, bound, lowest)
        ]
        return (xp.asarray(np.array(selected, dtype=np.int64).reshape(-1, 3)),)

    def _corners(self, boxes: Array) -> Array:
        """(..., 4): both coordinates of the lower corner, then of the upper one."""
        first, second = boxes[..., :2], boxes[..., 2:]
        if self.center_point_box:
            first, second = first - second / 2, first + second / 2
        return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def select_boxes(
    corners: Array, scores: Array, limit: int, overlap: float, lowest: float
) -> list[int]:
    """Indices of the boxes kept, the best first; of equal scores the first box wins."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > lowest]
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps(corners[best], corners[order]) <= overlap]
    return kept


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box with each of others : (n, 4); 0 where both are empty."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - common
    return common / np.where(union > 0, union, 1)


OPERATORS: tuple[type[Op], ...] = (NonMaxSuppression,)
