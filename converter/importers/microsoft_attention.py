"""Importers of com.microsoft's attention, composed of ONNX's Attention and what prepares for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, OnnxNode, Row
from mnnpy.converter.importers.microsoft import MICROSOFT, picked, sum_of
from mnnpy.runtime.errors import UnsupportedOperatorError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.ops.attention import Attention, RotaryEmbedding
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.elementwise import Add, Identity, Max, Mul, Sub, Where
from mnnpy.runtime.ops.generation import Range
from mnnpy.runtime.ops.indexing import TensorScatter
from mnnpy.runtime.ops.logic import And, Greater, Less, LessOrEqual
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.quantized_products import MatMulInteger
from mnnpy.runtime.ops.shaping import Reshape, Shape, Squeeze, Transpose, Unsqueeze
from mnnpy.runtime.ops.slicing import Concat, Expand, Pad, Split

_HIDDEN_SCORE = -10000.0
"""What ONNX Runtime adds to the scores that a mask hides, unless the node says otherwise."""

_ZERO, _ONE = np.asarray(0, np.int64), np.asarray(1, np.int64)
_AXIS_0 = np.zeros(1, np.int64)


def refuse_inputs(node: OnnxNode, *places: int) -> None:
    """Raise ``UnsupportedOperatorError`` where the node has one of these inputs."""
    for place in places:
        if node.input(place) is not None:
            raise UnsupportedOperatorError(f"{node}: input {place} is not supported")


def refuse_attributes(node: OnnxNode, *names: str) -> None:
    """Raise ``UnsupportedOperatorError`` where the node has one of these attributes, not zero."""
    for name in names:
        if node.attributes.get(name, 0):
            raise UnsupportedOperatorError(f"{node}: attribute {name} is not supported")


def _self_attention(
    make: Composition,
    node: OnnxNode,
    projected: str,
    mask: int,
    past: int,
    bias: int,
    sizes: Sequence[int] | None = None,
    like: int = 0,
) -> Imported:
    """Attention on queries, keys and values side by side: (n, length, 3 * hidden).

    Parameters
    ----------
    mask, past, bias : positions of inputs. The past is that of keys and values, stacked, and so
        is what output 1 gives.
    sizes : features of queries, keys and values, equal unless given.
    like : an input of the element type of the scores.
    """
    refuse_attributes(node, "do_rotary", "past_present_share_buffer")
    heads = node.attributes["num_heads"]
    split = None if sizes is None else np.asarray(sizes, np.int64)
    q, k, v = make.several(3, Split(3, -1), projected, split)
    pasts: tuple[str | None, ...] = (None, None)
    if (stacked := node.input(past)) is not None:
        halves = make.several(2, Split(2, 0), stacked)
        pasts = tuple(make(Squeeze(), half, _AXIS_0) for half in halves)
    total = _key_count(make, make(Shape(1, 2), projected), pasts[0])
    added = _added_scores(make, node, mask, bias, total, like)
    op = Attention(
        node.attributes.get("unidirectional", 0),
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=node.attributes.get("scale", 0.0) or None,
    )
    y, keys, values = make.several(3, op, q, k, v, added, *pasts)
    if (present := node.output(1)) is not None:
        pair = (make(Unsqueeze(), half, _AXIS_0) for half in (keys, values))
        make(Concat(0), *pair, into=present)
    return make.result(Identity(), y)


def _key_count(make: Composition, new: str, past_key: str | None) -> str:
    """Name of the number of keys, in a vector: new ones and those of the past."""
    return new if past_key is None else make(Add(), new, make(Shape(2, 3), past_key))


def _added_scores(
    make: Composition, node: OnnxNode, mask: int, bias: int, total: str, like: int = 0
) -> str | None:
    """Name of what is added to the scores: a bias, and a low number where the mask is 0.

    The mask has the shape (n,) (numbers of valid keys), (n, keys) or (n, queries, keys).
    """
    added, name = node.input(bias), node.input(mask)
    if name is None:
        return added
    mask_type = node.require_tensor(mask)
    if mask_type.rank == 1:
        if differ(mask_type.shape[0], node.require_tensor(0).shape[0]):
            raise UnsupportedOperatorError(f"{node}: a mask of shape {mask_type.shape}")
        lengths = make(Unsqueeze(), make(Cast("int64"), name), np.ones(1, np.int64))
        name = make(Less(), _counted(make, total), lengths)
    elif mask_type.rank > 3:
        raise UnsupportedOperatorError(f"{node}: a mask of shape {mask_type.shape}")
    axes = np.asarray([1] if mask_type.rank == 3 else [1, 2], np.int64)
    seen = make(Unsqueeze(), make(Cast("bool"), name), axes)
    low = node.attributes.get("mask_filter_value", _HIDDEN_SCORE)
    bounds = (make.scalar(number, node.require_input(like)) for number in (0.0, low))
    hidden = make(Where(), seen, *bounds)
    return hidden if added is None else make(Add(), hidden, added)


def _counted(make: Composition, count: str) -> str:
    """Name of 0, 1, ... up to a number that comes in a vector."""
    return make(Range(), _ZERO, make(Squeeze(), count), _ONE)


def _attention(node: OnnxNode) -> Imported:
    refuse_inputs(node, 6)
    make = Composition(node)
    x, weights = node.require_input(0), node.require_input(1)
    projected = sum_of(make, make(MatMul(), x, weights), node.input(2))
    sizes = node.attributes.get("qkv_hidden_sizes")
    return _self_attention(make, node, projected, 3, 4, 5, sizes)


def _quantized_attention(node: OnnxNode) -> Imported:
    """Attention whose projection is a product of quantised numbers."""
    make = Composition(node)
    x, weights, bias, x_scale, w_scale = (node.require_input(place) for place in range(5))
    sums = make(MatMulInteger(), x, weights, node.input(6), node.input(7))
    scale = make(Mul(), x_scale, w_scale)
    projected = make(Add(), make(Mul(), make(Cast("float32"), sums), scale), bias)
    return _self_attention(make, node, projected, 5, 8, 9, like=3)


def _multi_head_attention(node: OnnxNode) -> Imported:
    """Attention of projected queries to keys and values, which may lie in one tensor.

    queries : (n, length, hidden); keys, values : like it or (n, heads, length, d); or
    (n, length, heads, 3 or 2, d), where keys and values, or values, are left out.
    """
    refuse_inputs(node, 8, 9)
    make, heads = Composition(node), node.attributes["num_heads"]
    q, k, v, bias = (node.input(place) for place in range(4))
    if v is None:
        packed = node.require_input(0 if k is None else 1)
        parts = make.several(3 if k is None else 2, Split(3 if k is None else 2, 3), packed)
        flat = tuple(make(Reshape(), part, np.asarray([0, 0, -1], np.int64)) for part in parts)
        q, k, v = flat if k is None else (q, *flat)
    pasts = (node.input(6), node.input(7))
    if bias is not None:
        projected = k is not None and v is not None and not _has_heads(node)
        q, k, v = _biased(make, node, (q, k, v), bias, projected)
    keys = make(Shape(2, 3) if _has_heads(node) else Shape(1, 2), k)
    total = _key_count(make, keys, pasts[0])
    op = Attention(
        node.attributes.get("unidirectional", 0),
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=node.attributes.get("scale", 0.0) or None,
    )
    added = _added_scores(make, node, 4, 5, total)
    return make.write(op, (q, k, v, added, *pasts), node.outputs[:3])


def _has_heads(node: OnnxNode) -> bool:
    """Whether keys and values come with an axis of heads, already projected."""
    return node.input(2) is not None and node.require_tensor(1).rank == 4


def _biased(
    make: Composition,
    node: OnnxNode,
    projections: tuple[str | None, ...],
    bias: str,
    every: bool,
) -> tuple[str | None, ...]:
    """Queries, and keys and values where ``every`` says so, plus their part of the bias."""
    count = node.require_size(3, 0)
    packed = node.require_tensor(0).rank == 5
    hidden = count // 3 if packed else node.require_size(0, -1)
    sizes = np.asarray([hidden, hidden, count - 2 * hidden], np.int64)
    parts = make.several(3, Split(3), bias, sizes)
    kept = len(projections) if every else 1
    return tuple(
        x if x is None or place >= kept else make(Add(), x, part)
        for place, (x, part) in enumerate(zip(projections, parts, strict=True))
    )


def _rotary_embedding(node: OnnxNode) -> Imported:
    """ONNX's, whose positions may be given as the first one alone, in a vector of one."""
    refuse_attributes(node, "is_packed_batching")
    if node.attributes.get("scale", 1.0) != 1:
        raise UnsupportedOperatorError(f"{node}: a scale of {node.attributes['scale']}")
    make = Composition(node)
    x, positions, cosines, sines = (node.require_input(place) for place in range(4))
    rank = node.require_tensor(0).rank
    if node.require_tensor(1).rank == 1:
        axis = rank - 2
        counted = _counted(make, make(Shape(axis, axis + 1), x))
        batch = make(Concat(0), make(Shape(0, 1), x), _AXIS_0 + 1)
        positions = make(Expand(), make(Add(), positions, counted), batch)
    heads = None
    if rank == 3:
        given = node.attributes.get("num_heads", 0)
        heads = given or node.require_size(0, -1) // (2 * node.require_size(2, 1))
    op = RotaryEmbedding(num_heads=heads, **picked(node, "interleaved", "rotary_embedding_dim"))
    return make.result(op, x, cosines, sines, positions)


def _group_query_attention(node: OnnxNode) -> Imported:
    """Causal attention with a cache, in which every sequence of the batch has its own length.

    seqlens_k : (n,), the number of keys that are valid, less one. The caches that are given may
    be longer than what they hold, and so are those that come out; new keys and values are written
    behind what there is. Queries and keys may be rotated before.
    """
    refuse_inputs(node, *range(11, 16))
    refuse_attributes(node, "smooth_softmax", "qk_output", "sliding_window_cache")
    if not node.attributes.get("causal", 1):
        raise UnsupportedOperatorError(f"{node}: attribute causal must be 1")
    make = Composition(node)
    heads, kv_heads = node.attributes["num_heads"], node.attributes["kv_num_heads"]
    q, k, v = _grouped_projections(make, node, heads, kv_heads)
    new = make(Shape(1, 2), q)
    lengths = make(Cast("int64"), make(Reshape(), node.require_input(5), _AXIS_0 - 1))
    begin = make(Max(), make(Sub(), make(Add(), lengths, _ONE), new), _ZERO)
    counted = _counted(make, new)
    positions = node.input(9) or make(Add(), make(Unsqueeze(), begin, _AXIS_0 + 1), counted)
    if node.attributes.get("do_rotary", 0):
        q, k = (
            make(rotary, x, node.require_input(7), node.require_input(8), positions)
            for rotary, x in zip(_rotaries(node, heads, kv_heads), (q, k), strict=True)
        )
    keys, values = (_cached(make, node, x, kv_heads, place, begin) for place, x in ((3, k), (4, v)))
    seen = _causal(make, node, make(Shape(2, 3), keys), begin, counted)
    if (bias := node.input(10)) is not None:
        low = make.scalar(-np.inf, node.require_input(0))
        seen = make(Where(), seen, bias, low)
    op = Attention(
        q_num_heads=heads,
        kv_num_heads=kv_heads,
        scale=node.attributes.get("scale", 0.0) or None,
        softcap=node.attributes.get("softcap", 0.0),
    )
    for name, present in zip(node.outputs[1:3], (keys, values), strict=False):
        make(Identity(), present, into=name)
    return make.result(op, q, keys, values, seen)


def _grouped_projections(
    make: Composition, node: OnnxNode, heads: int, kv_heads: int
) -> tuple[str, ...]:
    """Names of queries, keys and values, which may lie side by side in input 0."""
    if node.input(1) is not None:
        return tuple(node.require_input(place) for place in range(3))
    features = node.require_size(0, -1) // (heads + 2 * kv_heads)
    sizes = np.asarray([heads, kv_heads, kv_heads], np.int64) * features
    return make.several(3, Split(3, -1), node.require_input(0), sizes)


def _rotaries(node: OnnxNode, *heads: int) -> tuple[RotaryEmbedding, ...]:
    rotated = 2 * node.require_size(7, 1)
    interleaved = node.attributes.get("rotary_interleaved", 0)
    return tuple(RotaryEmbedding(interleaved, rotated, count) for count in heads)


def _cached(make: Composition, node: OnnxNode, x: str, heads: int, past: int, begin: str) -> str:
    """Name of the cache with what is new: (n, heads, length, d)."""
    parted = make(Reshape(), x, np.asarray([0, 0, heads, -1], np.int64))
    rows = make(Transpose((0, 2, 1, 3)), parted)
    if (cache := node.input(past)) is None:
        return rows
    total = make(Cast("int64"), make(Reshape(), node.require_input(6), _AXIS_0 + 1))
    missing = make(Max(), make(Sub(), total, make(Shape(2, 3), cache)), _ZERO)
    pads = make(Concat(0), _AXIS_0, missing)
    longer = make(Pad(), cache, pads, None, _AXIS_0 + 2)
    return make(TensorScatter(2), longer, rows, begin)


def _causal(make: Composition, node: OnnxNode, total: str, begin: str, counted: str) -> str:
    """Name of what queries may see: keys up to their own place, from the window's start on."""
    key = _counted(make, total)
    place = make(Add(), make(Unsqueeze(), begin, _AXIS_0 + 1), counted)
    place = make(Unsqueeze(), place, np.asarray([1, 3], np.int64))
    seen = make(LessOrEqual(), key, place)
    window = node.attributes.get("local_window_size", -1)
    if window > 0:
        first = make(Sub(), place, np.asarray(window, np.int64))
        seen = make(And(), seen, make(Greater(), key, first))
    return seen


ROWS: tuple[Row, ...] = (
    Row("Attention", 1, _attention, MICROSOFT),
    Row("QAttention", 1, _quantized_attention, MICROSOFT),
    Row("MultiHeadAttention", 1, _multi_head_attention, MICROSOFT),
    Row("RotaryEmbedding", 1, _rotary_embedding, MICROSOFT),
    Row("GroupQueryAttention", 1, _group_query_attention, MICROSOFT),
)
