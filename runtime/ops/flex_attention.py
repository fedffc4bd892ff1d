"""Attention whose scores and probabilities pass through graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    FLOAT64,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.attention import Attention, probabilities, root_scale, share_heads
from mnnpy.runtime.ops.bodies import Control, infer_body, run_body


@dataclass(frozen=True, slots=True)
class FlexAttention(Control):
    """Attention with graphs between its steps, ai.onnx.preview FlexAttention-1.

    q : (n, heads, queries, d), k : (n, kv_heads, keys, d), v : (n, kv_heads, keys, e), then what
    ``score_mod`` and ``prob_mod`` capture -> (n, heads, queries, e). Both graphs map (n, heads,
    queries, keys) to the same type: ``softmax_precision``, by default float32, or float64 for
    float64.
    """

    score_mod: Graph | None = None
    prob_mod: Graph | None = None
    scale: float | None = None
    softmax_precision: str | None = None

    domain: ClassVar[str] = "ai.onnx.preview"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return tuple(body for body in (self.score_mod, self.prob_mod) if body is not None)

    def infer(self, q: Value, k: Value, v: Value, *captured: Value) -> tuple[Type, ...]:
        y, *_, scores = Attention().infer(q, k, v)
        assert isinstance(scores, TensorType)
        scores = TensorType(self._dtype(q.dtype), scores.shape)
        for body, inputs in zip(
            (self.score_mod, self.prob_mod), self._split(captured), strict=True
        ):
            if body is not None:
                (result,) = infer_body(body, (Value(scores), *inputs))
                found = result.type
                if isinstance(found, TensorType) and _another_type(found, scores):
                    raise ShapeError(f"a modifier makes {found} of {scores}, must keep the type")
        return (y,)

    def reference(
        self, xp: ArrayModule, q: Array, k: Array, v: Array, *captured: Array
    ) -> tuple[Array, ...]:
        to_score, to_prob = self._split(captured)
        root = root_scale(xp, q, self.scale)
        keys, values = share_heads(xp, k, q.shape[1]), share_heads(xp, v, q.shape[1])
        x = xp.matmul(q * root, (keys * root).swapaxes(2, 3)).astype(self._dtype(q.dtype))
        if self.score_mod is not None:
            (x,) = run_body(self.score_mod, xp, (x, *to_score))
        x = probabilities(xp, x, blocked=xp.max(x, axis=-1, keepdims=True) == -np.inf)
        if self.prob_mod is not None:
            (x,) = run_body(self.prob_mod, xp, (x, *to_prob))
        return (xp.matmul(x.astype(q.dtype), values).astype(q.dtype),)

    def _split(self, captured: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value]]:
        """What the first and what the second graph captures."""
        count = 0 if self.score_mod is None else len(self.score_mod.inputs) - 1
        return captured[:count], captured[count:]

    def _dtype(self, dtype: DType) -> DType:
        if self.softmax_precision is not None:
            return DTYPES[self.softmax_precision]
        return FLOAT64 if dtype == FLOAT64 else FLOAT32

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        q, k, v = inputs[:3]
        assert q is not None
        assert k is not None
        assert v is not None
        return Attention().macs(inputs, Attention().infer(q, k, v))


def _another_type(a: TensorType, b: TensorType) -> bool:
    return a.dtype != b.dtype or a.rank != b.rank or any(map(differ, a.shape, b.shape))


OPERATORS: tuple[type[Op], ...] = (FlexAttention,)
