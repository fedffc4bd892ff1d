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
    needed_operators,
)
from mnnpy.converter.passes.views import VIEWS, reshape_target
from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import Array, TensorType
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.elementwise import Where
from mnnpy.runtime.ops.logic import IsNaN
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.shaping import Reshape, Transpose

_SCORES = Product(
    "scale",
    Call(MatMul, Product("query_scale", Var("query")), Product("key_scale", Var("key"))),
)
_SOFTMAX = Call(
    Softmax,
    OneOf(
        _SCORES,
        Sum(0.0, _SCORES, Var("mask")),
        Call(Where, Var("seen"), _SCORES, Scalar("blocked")),
        Call(Where, Var("hidden"), Scalar("blocked"), _SCORES),
    ),
    name="weights",
    where=lambda op: op.axis in (-1, 3),
)
_WEIGHTS = OneOf(
    _SOFTMAX,
    # What torch writes for rows of the mask that let nothing through.
    Call(Where, Call(IsNaN, Var("weights")), Scalar(0.0), _SOFTMAX),
)
_PATTERN = Call(MatMul, _WEIGHTS, Var("value"))
_NEEDED = needed_operators(_PATTERN)

_BLOCKING = -1e30
"""A score that is replaced by this or less is the same as one to which it is added."""


def recognise_attention(graph: Graph) -> Graph:
    """Softmax(Q K' * scale + mask) V on (batch, heads, length, features).

    The scale may stand on the scores, the queries or the keys, which are transposed before. The
    mask is added, or is a condition under which scores are replaced by -inf or a number next to
    it. Rows in which the mask is -inf everywhere give zeros, where the formula alone gives NaN.
    """
    return apply_rules(graph, _recognise)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys of which the formula reads the transpose: ``source`` with its axes in order ``perm``,
    of ``shape`` (batch, heads, length, features), which may part the first axis.
    """

    source: str
    perm: tuple[int, ...]
    shape: Shape


def _recognise(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, MatMul) or not subject.op_types >= _NEEDED:
        return None
    for match in matches(subject, node, _PATTERN):
        keys = _keys(subject, match.values["key"])
        if keys is not None and _holds(subject, match, keys):
            return _patch(subject, node, match, keys)
    return None


def _keys(subject: Subject, transposed: str) -> _Keys | None:
    """The keys behind a Transpose of the last two axes, or a Transpose and then a Reshape."""
    whole = subject.tensor(transposed)
    view = subject.producer(transposed, VIEWS)
    node = subject.producer(transposed if view is None else view.inputs[0], Transpose)
    if node is None or whole is None or whole.rank != 4:
        return None
    matrices, perm = subject.tensor(node.outputs[0]), permutation(subject, node)
    if matrices is None or perm is None or matrices.shape[-2:] != whole.shape[-2:]:
        return None
    n, heads, features, length = whole.shape
    return _Keys(node.reads[0], (*perm[:-2], perm[-1], perm[-2]), (n, heads, length, features))


def _holds(subject: Subject, match: Match, keys: _Keys) -> bool:
    """Whether the operator's conditions on shapes hold, and no number broadcasts."""
    values = match.values
    query, value = subject.tensor(values["query"]), subject.tensor(values["value"])
    if query is None or value is None or match.rank > 4 or _scale(match) <= 0:
        return False
    if query.rank != 4 or value.rank != 4:
        return False
    if not query.shape[:2] == keys.shape[:2] == value.shape[:2]:
        return False
    name = next((values[key] for key in ("mask", "seen", "hidden") if key in values), None)
    if name is None:
        return True
    if "mask" in values:
        fits = subject.value(name).type is not None and subject.value(name).dtype == query.dtype
    else:
        fits = match.numbers["blocked"] <= _BLOCKING
    return fits and _broadcasts(query, keys, subject.tensor(name))


def _broadcasts(query: TensorType, keys: _Keys, mask: TensorType | None) -> bool:
    """Whether a mask has every key and broadcasts to the scores."""
    if mask is None or not 2 <= mask.rank <= 4:
        return False
    scores = (*query.shape[:3], keys.shape[2])
    sizes = list(zip(reversed(mask.shape), reversed(scores), strict=False))
    return sizes[0][0] == sizes[0][1] and all(size in (1, wanted) for size, wanted in sizes)


def _scale(match: Match) -> float:
    numbers = match.numbers
    return float(np.prod([numbers[name] for name in ("scale", "query_scale", "key_scale")]))


def _patch(subject: Subject, node: Node, match: Match, keys: _Keys) -> Patch | None:
    add = _Additions(subject, node, match.values["key"])
    key = keys.source
    if keys.perm != tuple(range(len(keys.perm))):
        key = add.node("rows", Transpose(keys.perm), key)
    source = subject.tensor(keys.source)
    rows = () if source is None else tuple(source.shape[axis] for axis in keys.perm)
    if rows != keys.shape:
        target = reshape_target(rows, keys.shape)
        if target is None:
            return None
        key = add.node("heads", Reshape(), key, add.constant("shape", target))
    inputs = (match.values["query"], key, match.values["value"], *_mask(subject, match, add))
    attention = Node(node.name, Attention(scale=_scale(match)), inputs, node.outputs)
    return Patch(match.nodes, (*add.nodes, attention), add.constants)


def _mask(subject: Subject, match: Match, add: _Additions) -> tuple[str, ...]:
    """Name of the additive mask, none where there is no mask."""
    values = match.values
    if "mask" in values:
        return (values["mask"],)
    if "blocked" not in match.numbers:
        return ()
    dtype = subject.value(values["query"]).dtype
    zero = add.constant("zero", np.zeros((), dtype))
    blocked = add.constant("blocked", np.array(match.numbers["blocked"], dtype))
    if "seen" in values:
        return (add.node("mask", Where(), values["seen"], zero, blocked),)
    return (add.node("mask", Where(), values["hidden"], blocked, zero),)


class _Additions:
    """Nodes and constants that a patch adds, named after a value."""

    def __init__(self, subject: Subject, node: Node, stem: str) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self._subject, self._node, self._stem = subject, node, stem

    def node(self, part: str, op: Op, *inputs: str) -> str:
        """Add a node; the name of its output."""
        output = self._subject.fresh(f"{self._stem}.{part}")
        name = self._subject.fresh(f"{self._node.name}.{part}")
        self.nodes.append(Node(name, op, inputs, (output,)))
        return output

    def constant(self, part: str, array: Array) -> str:
        """Add a constant; its name."""
        name = self._subject.fresh(f"{self._stem}.{part}")
        self.constants[name] = array
        return name
