"""Recognise attention: softmax of scaled products of queries and keys, times values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnnpy.converter.passes.merge_transposes import permutation
from mnnpy.converter.passes.patterns import (
    Call,
    Match,
    OneOf,
    Product,
    Scalar,
    Sum,
    Var,
    matches,
)
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import TensorType
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.elementwise import Where
from mnnpy.runtime.ops.logic import IsNaN
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.shaping import Transpose

_SCORES = Product(
    "scale",
    Call(MatMul, Product("query_scale", Var("query")), Product("key_scale", Var("key"))),
)
_SOFTMAX = Call(
    Softmax,
    OneOf(_SCORES, Sum(0.0, _SCORES, Var("mask"))),
    name="weights",
    where=lambda op: op.axis in (-1, 3),
)
_WEIGHTS = OneOf(
    _SOFTMAX,
    # What torch writes for rows of the mask that let nothing through.
    Call(Where, Call(IsNaN, Var("weights")), Scalar(0.0), _SOFTMAX),
)
_PATTERN = Call(MatMul, _WEIGHTS, Var("value"))


def recognise_attention(graph: Graph) -> Graph:
    """Softmax(Q K' * scale + mask) V on (batch, heads, length, features).

    The scale may stand on the scores, the queries or the keys, which are transposed before. Rows
    in which the mask is -inf everywhere give zeros, where the formula alone would give NaN.
    """
    return apply_rules(graph, _recognise)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys of which the formula reads the transpose: a Transpose of ``source``, or itself."""

    source: str
    perm: tuple[int, ...]

    @property
    def direct(self) -> bool:
        return self.perm == (0, 1, 2, 3)


def _recognise(subject: Subject, node: Node) -> Patch | None:
    if (
        not isinstance(node.op, MatMul)
        or subject.producer(node.inputs[0], (Softmax, Where)) is None
    ):
        return None
    for match in matches(subject, node, _PATTERN):
        keys = _keys(subject, match.values["key"])
        if keys is not None and _holds(subject, match, keys):
            return _patch(subject, node, match, keys)
    return None


def _keys(subject: Subject, transposed: str) -> _Keys | None:
    node = subject.producer(transposed, Transpose)
    perm = None if node is None else permutation(subject, node)
    if node is None or perm is None or len(perm) != 4:
        return None
    return _Keys(node.reads[0], (perm[0], perm[1], perm[3], perm[2]))


def _holds(subject: Subject, match: Match, keys: _Keys) -> bool:
    """Whether the operator's conditions on shapes hold, and no number broadcasts."""
    values = match.values
    query, value, source = (
        subject.tensor(name) for name in (values["query"], values["value"], keys.source)
    )
    if query is None or value is None or source is None or match.rank > 4 or _scale(match) <= 0:
        return False
    if not (query.rank == value.rank == source.rank == 4):
        return False
    key = tuple(source.shape[axis] for axis in keys.perm)
    if not query.shape[:2] == key[:2] == value.shape[:2]:
        return False
    return "mask" not in values or _mask_fits(query, key, subject.tensor(values["mask"]))


def _mask_fits(query: TensorType, key: tuple[object, ...], mask: TensorType | None) -> bool:
    """Whether an additive mask has every key and broadcasts to the scores."""
    if mask is None or mask.dtype != query.dtype or not 2 <= mask.rank <= 4:
        return False
    scores = (*query.shape[:3], key[2])
    sizes = list(zip(reversed(mask.shape), reversed(scores), strict=False))
    return sizes[0][0] == sizes[0][1] and all(size in (1, wanted) for size, wanted in sizes)


def _scale(match: Match) -> float:
    numbers = match.numbers
    return float(np.prod([numbers[name] for name in ("scale", "query_scale", "key_scale")]))


def _patch(subject: Subject, node: Node, match: Match, keys: _Keys) -> Patch:
    values = match.values
    add = []
    key = keys.source
    if not keys.direct:
        key = subject.fresh(f"{values['key']}.rows")
        name = subject.fresh(f"{node.name}.keys")
        add.append(Node(name, Transpose(keys.perm), (keys.source,), (key,)))
    inputs = [values["query"], key, values["value"]]
    inputs += [values["mask"]] if "mask" in values else []
    add.append(Node(node.name, Attention(scale=_scale(match)), tuple(inputs), node.outputs))
    return Patch(match.nodes, tuple(add))
