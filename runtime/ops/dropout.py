"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen


@dataclass(frozen=True, slots=True)
class Dropout(Op):
    """Zero a random part of the elements and scale the rest, in training, ONNX Dropout-22.

    data, ratio : scalar, training : bool scalar -> output, mask : bool, true where data is kept.

    The mask is drawn on the host by MT19937, seeded, as ONNX's cases expect.
    """

    seed: int | None = None
    deterministic: ClassVar[bool] = False

    def infer(
        self, data: Value, ratio: Value | None = None, training: Value | None = None
    ) -> tuple[Type, ...]:
        return (data.tensor, TensorType(BOOL, data.shape))

    def reference(
        self,
        xp: ArrayModule,
        data: Array,
        ratio: Array | None = None,
        training: Array | None = None,
    ) -> tuple[Array, ...]:
        dropped = 0.5 if ratio is None else float(ratio)
        if training is None or not bool(training) or dropped == 0:
            return data, xp.ones(data.shape, dtype=np.bool_)
        seed = None if self.seed is None else self.seed % 2**32
        draws = np.random.RandomState(seed).uniform(0, 1, data.shape)
        mask = xp.asarray(draws >= dropped)
        kept = xp.where(mask, widen(data) / (1 - dropped), 0)
        return kept.astype(data.dtype), mask


OPERATORS: tuple[type[Op], ...] = (Dropout,)
