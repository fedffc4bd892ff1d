"""Importers of the domain ai.onnx.ml: ensembles of decision trees."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, OnnxNode, Row
from mnnpy.converter.importers.ml import DOMAIN, class_labels, classified, post_transform
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.classes import TRANSFORMS, Classes, PostTransform
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.trees import AGGREGATES, MODES, TreeEnsemble

_MEMBER = MODES.index("MEMBER")


def _trees(
    make: Composition,
    node: OnnxNode,
    aggregate: str,
    count: int,
    tables: Mapping[str, Array],
    members: Array | None = None,
) -> str:
    """Name of the votes of trees that are given as :class:`TreeEnsemble` takes them."""
    names = ("roots", "nodes", "splits", "begins", "targets", "weights")
    op = TreeEnsemble(count, aggregate)
    return make(op, node.require_input(0), *(tables[name] for name in names), members)


def _tree_ensemble(node: OnnxNode) -> Imported:
    """TreeEnsemble-5, every leaf of which votes for one target."""
    given = node.attributes
    modes = given["nodes_modes"].reshape(-1).astype(np.int64)
    count = len(modes)
    children = []
    for side in ("true", "false"):
        places = np.asarray(given[f"nodes_{side}nodeids"], np.int64)
        leaf = np.asarray(given[f"nodes_{side}leafs"], np.int64) != 0
        children.append(np.where(leaf, -1 - places, places))
    missing = given.get("nodes_missing_value_tracks_true") or (0,) * count
    targets = np.asarray(given["leaf_targetids"], np.int64)
    tables = {
        "roots": np.asarray(given["tree_roots"], np.int64),
        "nodes": np.stack([np.asarray(given["nodes_featureids"]), modes, *children, missing]),
        "splits": given["nodes_splits"].reshape(-1),
        "begins": np.arange(len(targets) + 1),
        "targets": targets,
        "weights": given["leaf_weights"].reshape(-1),
    }
    make = Composition(node)
    aggregate = AGGREGATES[given.get("aggregate_function", 1)]
    wanted = given.get("n_targets", int(targets.max()) + 1)
    members = _members(node, modes, given.get("membership_values"))
    votes = _trees(make, node, aggregate, wanted, tables, members)
    return make.result(PostTransform(TRANSFORMS[given.get("post_transform", 0)]), votes)


def _members(node: OnnxNode, modes: Array, values: Array | None) -> Array | None:
    """The set of every node, filled up with NaN, which also ends each set in ``values``."""
    if _MEMBER not in modes:
        return None
    numbers = np.zeros(0) if values is None else values.reshape(-1)
    ends = np.flatnonzero(np.isnan(numbers))
    sets = [part[~np.isnan(part)] for part in np.split(numbers, ends)]
    places = np.flatnonzero(modes == _MEMBER)
    if len(sets) < len(places):
        raise InvalidModelError(f"{node}: {len(sets)} sets for {len(places)} nodes of membership")
    table = np.full((len(modes), max(map(len, sets))), math.nan, numbers.dtype)
    for place, members in zip(places, sets, strict=False):
        table[place, : len(members)] = members
    return table


def _old_trees(node: OnnxNode, role: str) -> dict[str, Array]:
    """Tables of the attributes of TreeEnsembleRegressor-3, or -Classifier-3 (``role`` "class")."""
    given = node.attributes
    keys = list(zip(given["nodes_treeids"], given["nodes_nodeids"], strict=True))
    modes = [mode.removeprefix("BRANCH_") for mode in given["nodes_modes"]]
    inner = [key for key, mode in zip(keys, modes, strict=True) if mode != "LEAF"]
    leaves = [key for key, mode in zip(keys, modes, strict=True) if mode == "LEAF"]
    place = {key: i for i, key in enumerate(inner)} | {key: -1 - i for i, key in enumerate(leaves)}
    kept = [i for i, mode in enumerate(modes) if mode != "LEAF"]
    missing = given.get("nodes_missing_value_tracks_true") or (0,) * len(keys)
    children = [
        [place[keys[i][0], given[f"nodes_{side}nodeids"][i]] for i in kept]
        for side in ("true", "false")
    ]
    below = {child for side in children for child in side}
    roots = [i for i in place.values() if i not in below]
    if len(roots) != len(set(given["nodes_treeids"])):
        raise InvalidModelError(
            f"{node}: {len(roots)} nodes are below no other, of "
            f"{len(set(given['nodes_treeids']))} trees"
        )
    votes = sorted(
        (-1 - place[key], i)
        for i, key in enumerate(
            zip(given[f"{role}_treeids"], given[f"{role}_nodeids"], strict=True)
        )
        if place[key] < 0
    )
    order = [i for _, i in votes]
    columns = [given["nodes_featureids"], list(map(_mode, modes)), missing]
    features, numbers, missing = ([column[i] for i in kept] for column in columns)
    weights, splits = _numbers(node, f"{role}_weights"), _numbers(node, "nodes_values")
    return {
        "roots": np.asarray(roots, np.int64),
        "nodes": np.asarray([features, numbers, *children, missing], np.int64).reshape(5, -1),
        "splits": splits[kept],
        "begins": np.searchsorted([leaf for leaf, _ in votes], np.arange(len(leaves) + 1)),
        "targets": np.asarray(given[f"{role}_ids"], np.int64)[order],
        "weights": weights[order],
    }


def _mode(name: str) -> int:
    return MODES.index(name) if name in MODES else -1


def _numbers(node: OnnxNode, name: str) -> Array:
    """A list of numbers: a float32 attribute, or a tensor of any type."""
    tensor = node.attributes.get(f"{name}_as_tensor")
    if tensor is None:
        return np.asarray(node.attributes.get(name, ()), np.float32)
    return np.asarray(tensor).reshape(-1)


def _tree_regressor(node: OnnxNode) -> Imported:
    make, tables = Composition(node), _old_trees(node, "target")
    count = node.attributes.get("n_targets", 1)
    aggregate = node.attributes.get("aggregate_function", "SUM")
    if aggregate not in AGGREGATES:
        raise InvalidModelError(f"{node}: aggregate_function {aggregate!r} is none of {AGGREGATES}")
    votes = _based(make, node, _trees(make, node, aggregate, count, tables))
    return make.result(PostTransform(post_transform(node)), make(Cast("float32"), votes))


def _based(make: Composition, node: OnnxNode, votes: str) -> str:
    base = _numbers(node, "base_values")
    return make(Add(), votes, base) if len(base) else votes


def _tree_classifier(node: OnnxNode) -> Imported:
    """Where votes for one of two classes are all that there is, they make both scores."""
    make, tables = Composition(node), _old_trees(node, "class")
    count = len(class_labels(node, "classlabels"))
    voted = np.unique(tables["targets"]).tolist()
    if count != 2 or len(voted) != 1:
        scores = _based(make, node, _trees(make, node, "SUM", count, tables))
        scores = make(Cast("float32"), scores)
        return classified(make, node, make(Classes(), scores), scores)
    positive = bool((tables["weights"] >= 0).all())
    threshold = 0.5 if positive else 0.0
    if voted == [1]:
        scores = make(Cast("float32"), _trees(make, node, "SUM", 2, tables))
        return classified(make, node, make(Classes(threshold), scores), scores)
    scores = _based(make, node, _trees(make, node, "SUM", 1, tables))
    scores = make(Cast("float32"), scores)
    second = "complement" if positive else "negative"
    return classified(make, node, make(Classes(threshold), scores), scores, second)


ROWS: tuple[Row, ...] = (
    Row("TreeEnsemble", 5, _tree_ensemble, DOMAIN),
    Row("TreeEnsembleRegressor", 1, _tree_regressor, DOMAIN),
    Row("TreeEnsembleClassifier", 1, _tree_classifier, DOMAIN),
)
