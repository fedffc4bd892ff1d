"""Attention of queries to keys and values, and rotary position embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    Array,
    ArrayModule,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.elementwise import require_same_dtype


@dataclass(frozen=True, slots=True)
class Attention(Op):
    """Scaled dot-product attention, ONNX Attention-25.

    q : (n, heads, queries, d), k : (n, kv_heads, keys, d), v : (n, kv_heads, keys, e), or
    (n, length, heads * d) with the numbers of heads given; mask : broadcast to (n, heads, queries,
    keys), bool or additive, its last axis possibly shorter; past_key, past_value : what stands
    before k and v; nonpad_kv_seqlen : (n,) valid keys.
    -> y like q, present key, present value, scores (what they are says ``qk_matmul_output_mode``:
    0 products, 1 after softcap, 2 after the mask too, 3 probabilities).
    """

    is_causal: int = 0
    left_window_size: int = -1
    right_window_size: int = -1
    q_num_heads: int | None = None
    kv_num_heads: int | None = None
    scale: float | None = None
    softcap: float = 0.0
    softmax_precision: str | None = None
    qk_matmul_output_mode: int = 0

    def infer(
        self,
        q: Value,
        k: Value,
        v: Value,
        mask: Value | None = None,
        past_key: Value | None = None,
        past_value: Value | None = None,
        nonpad_kv_seqlen: Value | None = None,
    ) -> tuple[Type, ...]:
        require_same_dtype(q, k)
        if (past_key is None) != (past_value is None):
            raise ShapeError("past_key and past_value are given together or not at all")
        n, heads, queries, d = split_shape(q.shape, self.q_num_heads)
        _, kv_heads, keys, d_k = split_shape(k.shape, self.kv_num_heads)
        _, _, values, e = split_shape(v.shape, self.kv_num_heads)
        if differ(d, d_k) or differ(keys, values):
            raise ShapeError(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit together")
        if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
            raise ShapeError(f"{heads} heads of q do not share {kv_heads} heads of k")
        if past_key is not None and past_value is not None:
            if past_key.rank != 4 or past_value.rank != 4:
                raise ShapeError(f"pasts of shape {past_key.shape} and {past_value.shape}")
            keys = keys + past_key.shape[2]
        y: Shape = (n, heads, queries, e) if q.rank == 4 else (n, queries, heads * e)
        return (
            TensorType(q.dtype, y),
            TensorType(k.dtype, (n, kv_heads, keys, d)),
            TensorType(v.dtype, (n, kv_heads, keys, e)),
            TensorType(q.dtype, (n, heads, queries, keys)),
        )

    def reference(
        self,
        xp: ArrayModule,
        q: Array,
        k: Array,
        v: Array,
        mask: Array | None = None,
        past_key: Array | None = None,
        past_value: Array | None = None,
        nonpad_kv_seqlen: Array | None = None,
    ) -> tuple[Array, ...]:
        dtype, rank = q.dtype, q.ndim
        q = split_heads(q, self.q_num_heads)
        k, v = (split_heads(x, self.kv_num_heads) for x in (k, v))
        if past_key is not None:
            k, v = xp.concatenate([past_key, k], axis=2), xp.concatenate([past_value, v], axis=2)
        bias = self._bias(xp, q, k.shape[2], mask, past_key, nonpad_kv_seqlen)
        root = root_scale(xp, q, self.scale)
        keys, values = share_heads(xp, k, q.shape[1]), share_heads(xp, v, q.shape[1])
        scores = [xp.matmul(q * root, (keys * root).swapaxes(2, 3)).astype(dtype)]
        scores.append(soft_capped(xp, scores[0], self.softcap))
        scores.append(scores[1] + bias)
        blocked = xp.max(bias, axis=-1, keepdims=True) == -np.inf
        logits = scores[2].astype(DTYPES[self.softmax_precision or dtype.name])
        scores.append(probabilities(xp, logits, blocked).astype(dtype))
        y = xp.matmul(scores[3], values).astype(dtype)
        return join_heads(y, rank), k, v, scores[self.qk_matmul_output_mode]

    def _bias(
        self,
        xp: ArrayModule,
        q: Array,
        keys: int,
        mask: Array | None,
        past_key: Array | None,
        nonpad: Array | None,
    ) -> Array:
        """What is added to the scores: the mask, and -inf where a key is not to be seen."""
        queries = q.shape[2]
        key = xp.arange(keys)
        position = xp.arange(queries)[:, None]
        seen = xp.ones((queries, keys), dtype=bool)
        if nonpad is not None:
            valid = nonpad.reshape(-1, 1, 1, 1)
            seen = seen & (key < valid)
            position = position + valid - queries
        elif past_key is not None:
            position = position + past_key.shape[2]
        if self.is_causal:
            seen = seen & (key <= position)
        if self.left_window_size >= 0:
            seen = seen & (key >= position - self.left_window_size)
        if self.right_window_size >= 0:
            seen = seen & (key <= position + self.right_window_size)
        added = xp.zeros((), dtype=q.dtype)
        if mask is not None:
            missing = [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])]
            seen = seen & xp.pad(xp.ones(mask.shape, dtype=bool), missing)
            padded = xp.pad(mask, missing)
            if mask.dtype == np.bool_:
                seen = seen & padded
            else:
                added = padded.astype(q.dtype)
        return xp.where(seen, added, xp.asarray(-np.inf, dtype=q.dtype))

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        q, k, v, *rest = inputs
        assert q is not None and k is not None and v is not None
        scores = self.infer(q, k, v, *rest)[3]
        assert isinstance(scores, TensorType)
        depths = (split_shape(x.shape, self.kv_num_heads)[3] for x in (k, v))
        return scores.size * sum(map(int, depths))


@dataclass(frozen=True, slots=True)
class RotaryEmbedding(Op):
    """Rotation of pairs of features by position, ONNX RotaryEmbedding-23.

    x : (n, heads, length, d), or (n, length, heads * d) with ``num_heads``; cosines and sines :
    (positions, r / 2) read at position_ids : (n, length), or (n, length, r / 2) -> like x. Of d
    features the first r = ``rotary_embedding_dim`` (0: all) are rotated, in neighbouring pairs
    where ``interleaved``, else feature i with feature i + r / 2.
    """

    interleaved: int = 0
    rotary_embedding_dim: int = 0
    num_heads: int | None = None

    def infer(
        self, x: Value, cosines: Value, sines: Value, position_ids: Value | None = None
    ) -> tuple[Type, ...]:
        require_same_dtype(x, cosines, sines)
        rotated = self.rotary_embedding_dim or split_shape(x.shape, self.num_heads)[3]
        for table in (cosines, sines):
            if table.rank != (3 if position_ids is None else 2):
                raise ShapeError(f"a table of cosines or sines has the shape {table.shape}")
            if differ(table.shape[-1], rotated // 2):
                raise ShapeError(f"a table of shape {table.shape} to rotate {rotated} features")
        return (x.tensor,)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        cosines: Array,
        sines: Array,
        position_ids: Array | None = None,
    ) -> tuple[Array, ...]:
        rank = x.ndim
        y = split_heads(x, self.num_heads).copy()
        if position_ids is not None:
            cosines, sines = cosines[position_ids], sines[position_ids]
        cosines, sines = cosines[:, None], sines[:, None]
        r = self.rotary_embedding_dim or y.shape[3]
        if self.interleaved:
            first, second = slice(0, r, 2), slice(1, r, 2)
        else:
            first, second = slice(0, r // 2), slice(r // 2, r)
        real, imaginary = y[..., first].copy(), y[..., second].copy()
        y[..., first] = cosines * real - sines * imaginary
        y[..., second] = sines * real + cosines * imaginary
        return (join_heads(y, rank),)


def split_shape(shape: Shape, heads: int | None) -> tuple[Dim, Dim, Dim, Dim]:
    """(n, heads, length, d) of a shape that has this form or (n, length, heads * d)."""
    if len(shape) == 4:
        n, found, length, d = shape
        return n, found, length, d
    if len(shape) != 3 or not heads:
        raise ShapeError(f"a shape of {shape} with {heads} heads: need rank 4, or 3 with heads")
    n, length, hidden = shape
    if differ(hidden % heads, 0):
        raise ShapeError(f"{hidden} features are not divisible by {heads} heads")
    return n, heads, length, hidden // heads


def split_heads(x: Array, heads: int | None) -> Array:
    """(n, length, heads * d) -> (n, heads, length, d); rank 4 stays."""
    if x.ndim == 4 or heads is None:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join_heads(x: Array, rank: int) -> Array:
    """(n, heads, length, d) -> (n, length, heads * d) for rank 3, else unchanged."""
    n, heads, length, d = x.shape
    return x if rank == 4 else x.swapaxes(1, 2).reshape(n, length, heads * d)


def share_heads(xp: ArrayModule, x: Array, heads: int) -> Array:
    """Repeat every head of keys or values for the query heads that share it."""
    return xp.repeat(x, heads // x.shape[1], axis=1)


def root_scale(xp: ArrayModule, q: Array, scale: float | None) -> Array:
    """Square root of the scale (default 1 / sqrt(d)), by which queries and keys are multiplied."""
    return xp.asarray((q.shape[3] ** -0.5 if scale is None else scale) ** 0.5, dtype=q.dtype)


def soft_capped(xp: ArrayModule, x: Array, cap: float) -> Array:
    """Scores pressed into (-cap, cap); unchanged where cap is 0."""
    if not cap:
        return x
    bound = xp.asarray(cap, dtype=x.dtype)
    return xp.tanh(x / bound) * bound


def probabilities(xp: ArrayModule, logits: Array, blocked: Array) -> Array:
    """Softmax over the last axis; zeros in rows that may see no key at all."""
    zero = xp.zeros((), dtype=logits.dtype)
    top = xp.max(logits, axis=-1, keepdims=True)
    powers = xp.exp(logits - xp.where(top == -np.inf, zero, top))
    return xp.where(blocked, zero, powers / xp.sum(powers, axis=-1, keepdims=True))


OPERATORS: tuple[type[Op], ...] = (Attention, RotaryEmbedding)
