"""Decision trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value

MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
"""How a node compares a feature with its split, in the order of TreeEnsemble-5's numbers."""

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(frozen=True, slots=True)
class TreeEnsemble(Op):
    """Votes of decision trees, ml.TreeEnsemble-5, the trees being inputs.

    x : (n, features); roots : (trees,); nodes : (5, count), the feature, mode, places of the
    children for true and false, and whether NaN goes to the true one; splits : (count,); begins :
    (leaves + 1,), where the votes of each leaf begin in targets and weights : (votes,); members :
    (count, most), the set of every node whose mode is MEMBER, filled up with NaN -> (n, n_targets)
    of the weights' type. Leaf i stands among the places of nodes as -1 - i.
    """

    n_targets: int
    aggregate: str = "SUM"
    domain: ClassVar[str] = "ai.onnx.ml"

    def infer(
        self,
        x: Value,
        roots: Value,
        nodes: Value,
        splits: Value,
        begins: Value,
        targets: Value,
        weights: Value,
        members: Value | None = None,
    ) -> tuple[Type, ...]:
        if x.rank != 2:
            raise ShapeError(f"features of shape {x.shape}: need (n, features)")
        shape: tuple[Dim, ...] = (x.shape[0], self.n_targets)
        return (TensorType(weights.dtype, shape),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        roots: Array,
        nodes: Array,
        splits: Array,
        begins: Array,
        targets: Array,
        weights: Array,
        members: Array | None = None,
    ) -> tuple[Array, ...]:
        leaves = _leaves(xp, x, roots, nodes, splits, members)
        votes, voted = self._votes(xp, leaves, begins, targets, weights)
        if self.aggregate == "AVERAGE":
            votes = votes / len(roots)
        return (xp.where(voted, votes, 0).astype(weights.dtype),)

    def _votes(
        self, xp: ArrayModule, leaves: Array, begins: Array, targets: Array, weights: Array
    ) -> tuple[Array, Array]:
        """Votes of all trees together per row and target, and whether there was one."""
        start = {"MIN": np.inf, "MAX": -np.inf}.get(self.aggregate, 0)
        combine = {"MIN": xp.minimum, "MAX": xp.maximum}.get(self.aggregate, xp.add)
        total = xp.full((len(leaves), self.n_targets), start, dtype=weights.dtype)
        voted = xp.zeros(total.shape, dtype=np.bool_)
        first, count = begins[leaves], begins[leaves + 1] - begins[leaves]
        for place in range(int(count.max(initial=0))):
            rows, trees = xp.nonzero(place < count)
            votes = first[rows, trees] + place
            combine.at(total, (rows, targets[votes]), weights[votes])
            voted[rows, targets[votes]] = True
        return total, voted


def _leaves(
    xp: ArrayModule, x: Array, roots: Array, nodes: Array, splits: Array, members: Array | None
) -> Array:
    """Leaf that every row of ``x`` reaches in every tree: (n, trees)."""
    features, modes, true, false, missing = nodes
    rows = xp.arange(len(x))[:, None]
    place = xp.broadcast_to(roots, (len(x), len(roots)))
    for _ in range(len(splits)):
        if (place < 0).all():
            break
        node = xp.maximum(place, 0)
        value, split = x[rows, features[node]], splits[node]
        order = (value <= split, value < split, value >= split, value > split)
        tests = [*order, value == split, value != split]
        if members is not None:
            tests.append((value[..., None] == members[node]).any(axis=-1))
        taken = xp.take_along_axis(xp.stack(tests), modes[node][None], axis=0)[0]
        taken = xp.where(xp.isnan(value), missing[node] != 0, taken)
        place = xp.where(place < 0, place, xp.where(taken, true[node], false[node]))
    if (place >= 0).any():
        raise ShapeError("the trees have a circle")
    return -1 - place


OPERATORS: tuple[type[Op], ...] = (TreeEnsemble,)
