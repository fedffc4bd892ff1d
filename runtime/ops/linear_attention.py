"""Attention with a recurrent state, and the causal convolution that stands before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.attention import join_heads, share_heads, split_heads, split_shape
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import sigmoid, widen

GATED = ("gated", "gated_delta")
DELTA = ("delta", "gated_delta")


@dataclass(frozen=True, slots=True)
class LinearAttention(Op):
    """Attention through a matrix-valued state per head, ONNX LinearAttention-27.

    q : (n, t, q_num_heads * d), k : (n, t, kv_num_heads * d), v : (n, t, kv_num_heads * e),
    past state : (n, kv_num_heads, d, e), decay : (n, t, kv_num_heads * d) or (n, t, kv_num_heads),
    beta : (n, t, kv_num_heads) or (n, t, 1) -> (n, t, q_num_heads * e), present state.
    Token by token: S = exp(decay) S + k v' where the delta rules put beta (v - S' k) in place of v,
    and the output is scale * S' q. ``scale`` 0 means 1 / sqrt(d).
    """

    q_num_heads: int
    kv_num_heads: int
    scale: float = 0.0
    update_rule: str = "gated_delta"

    def infer(
        self,
        q: Value,
        k: Value,
        v: Value,
        past: Value | None = None,
        decay: Value | None = None,
        beta: Value | None = None,
    ) -> tuple[Type, ...]:
        require_same_dtype(q, k, v)
        for name, value, rules in (("decay", decay, GATED), ("beta", beta, DELTA)):
            if (value is not None) != (self.update_rule in rules):
                need = "needs" if value is None else "has no use for"
                raise ShapeError(f"the update rule {self.update_rule!r} {need} {name}")
        if self.q_num_heads % self.kv_num_heads:
            raise ShapeError(f"{self.q_num_heads} heads do not share {self.kv_num_heads}")
        n, _, t, d = split_shape(q.shape, self.q_num_heads)
        *_, d_k = split_shape(k.shape, self.kv_num_heads)
        *_, e = split_shape(v.shape, self.kv_num_heads)
        if differ(d, d_k):
            raise ShapeError(f"q {q.shape} and k {k.shape} have heads of {d} and {d_k} features")
        state: Shape = (n, self.kv_num_heads, d, e)
        if past is not None and any(map(differ, past.shape, state)):
            raise ShapeError(f"the past state has the shape {past.shape}, needed is {state}")
        state_dtype = q.dtype if past is None else past.dtype
        y: Shape = (n, t, e * self.q_num_heads)
        return TensorType(q.dtype, y), TensorType(state_dtype, state)

    def reference(
        self,
        xp: ArrayModule,
        q: Array,
        k: Array,
        v: Array,
        past: Array | None = None,
        decay: Array | None = None,
        beta: Array | None = None,
    ) -> tuple[Array, ...]:
        dtype, state_dtype = q.dtype, q.dtype if past is None else past.dtype
        q = widen(split_heads(q, self.q_num_heads))
        k, v = (widen(split_heads(x, self.kv_num_heads)) for x in (k, v))
        heads, tokens, (d, e) = q.shape[1], q.shape[2], (k.shape[3], v.shape[3])
        # Columns: (n, heads or 1, t, d or 1), which broadcast against the state's rows.
        if decay is not None:
            growth = xp.exp(widen(split_heads(decay, self.kv_num_heads)))
        if beta is not None:
            rate = widen(split_heads(beta, beta.shape[2]))
        state = xp.zeros((q.shape[0], self.kv_num_heads, d, e), dtype=q.dtype)
        state = state if past is None else widen(past)
        y = xp.empty((*q.shape[:3], e), dtype=q.dtype)
        for t in range(tokens):
            key, value = k[:, :, t, :, None], v[:, :, t, None, :]
            if decay is not None:
                state = growth[:, :, t, :, None] * state
            if beta is not None:
                value = rate[:, :, t, :, None] * (value - xp.matmul(key.swapaxes(2, 3), state))
            state = state + key * value
            read = xp.matmul(q[:, :, t, None, :], share_heads(xp, state, heads))
            y[:, :, t] = (self.scale or d**-0.5) * read[:, :, 0]
        return join_heads(y, 3).astype(dtype), state.astype(state_dtype)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        y, state = outputs
        assert isinstance(y, TensorType)
        assert isinstance(state, TensorType)
        passes = self.q_num_heads + self.kv_num_heads * (2 if self.update_rule in DELTA else 1)
        return state.size // self.kv_num_heads * int(y.shape[1]) * passes


@dataclass(frozen=True, slots=True)
class CausalConvWithState(Op):
    """Depthwise convolution over the past, ONNX CausalConvWithState-27.

    x : (n, c, length), w : (c, 1, kernel), b : (c,), past state : (n, c, kernel - 1), zeros where
    absent -> (n, c, length), present state. ``activation`` is none or silu.
    """

    activation: str = "none"

    def infer(
        self, x: Value, w: Value, b: Value | None = None, past: Value | None = None
    ) -> tuple[Type, ...]:
        require_same_dtype(x, w)
        if x.rank != 3 or w.rank != 3 or differ(x.shape[1], w.shape[0]) or differ(w.shape[1], 1):
            raise ShapeError(f"x {x.shape} and w {w.shape}: need (n, c, length) and (c, 1, kernel)")
        state: Shape = (*x.shape[:2], w.shape[2] - 1)
        if past is not None and any(map(differ, past.shape, state)):
            raise ShapeError(f"the past state has the shape {past.shape}, needed is {state}")
        return x.tensor, TensorType(x.dtype, state)

    def reference(
        self, xp: ArrayModule, x: Array, w: Array, b: Array | None = None, past: Array | None = None
    ) -> tuple[Array, ...]:
        kernel = w.shape[2]
        if past is None:
            past = xp.zeros((*x.shape[:2], kernel - 1), dtype=x.dtype)
        seen = xp.concatenate([past, x], axis=2)
        conv = Conv(group=x.shape[1])
        (y,) = conv.reference(xp, *(v if v is None else widen(v) for v in (seen, w, b)))
        y = y.astype(x.dtype)
        if self.activation == "silu":
            y = (widen(y) * sigmoid(xp, widen(y))).astype(x.dtype)
        return y, seen[:, :, seen.shape[2] - kernel + 1 :]

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        x, w = inputs[:2]
        assert x is not None
        assert w is not None
        return x.tensor.size * int(w.shape[2])


OPERATORS: tuple[type[Op], ...] = (LinearAttention, CausalConvWithState)
