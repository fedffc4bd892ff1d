"""Importers of the domain ai.onnx.ml."""

from __future__ import annotations

import math
from typing import Any

from mnnpy.converter.importers.base import OnnxNode, Row, direct
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import dtype_name
from mnnpy.runtime.ops import ml

_DOMAIN = "ai.onnx.ml"
_MEMBERSHIP = 6
_SUFFIXES: dict[str, tuple[str, ml.Label]] = {
    "strings": ("string", "_Unused"),
    "int64s": ("int64", -1),
    "floats": ("float32", -0.0),
}
"""Suffix of a list attribute -> element type and default."""


def _label_encoder_1(node: OnnxNode) -> Op:
    """Strings to their places, or places to strings where the default is a string."""
    classes = tuple(node.attributes["classes_strings"])
    numbers = tuple(range(len(classes)))
    if "default_string" in node.attributes:
        default = node.attributes["default_string"]
        return ml.LabelEncoder(numbers, classes, default, "string")
    return ml.LabelEncoder(classes, numbers, node.attributes.get("default_int64", -1), "int64")


def _label_encoder_2(node: OnnxNode) -> Op:
    attributes = node.attributes
    keys, _, _ = _labels(node, "keys")
    values, dtype, default = _labels(node, "values")
    if len(keys) != len(values):
        raise InvalidModelError(f"{node}: {len(keys)} keys for {len(values)} values")
    given = {"string": "default_string", "int64": "default_int64", "float32": "default_float"}
    default = attributes.get(given.get(dtype, ""), default)
    if "default_tensor" in attributes:
        (default,) = attributes["default_tensor"].reshape(-1).tolist()
    return ml.LabelEncoder(keys, values, default, dtype)


def _labels(node: OnnxNode, side: str) -> tuple[tuple[ml.Label, ...], str, ml.Label]:
    """(labels, element type, default) of the keys or the values."""
    for suffix, (dtype, default) in _SUFFIXES.items():
        labels = node.attributes.get(f"{side}_{suffix}")
        if labels:
            return tuple(labels), dtype, default
    tensor = node.attributes.get(f"{side}_tensor")
    if tensor is None:
        raise InvalidModelError(f"{node}: no {side} are given")
    kinds: dict[str, ml.Label] = {"O": "_Unused", "i": -1}
    fallback = kinds.get(tensor.dtype.kind, -0.0)
    return tuple(tensor.reshape(-1).tolist()), dtype_name(tensor.dtype), fallback


def _tree_ensemble(node: OnnxNode) -> Op:
    attributes: dict[str, Any] = dict(node.attributes)
    for name in ("nodes_modes", "nodes_splits", "leaf_weights"):
        attributes[name] = tuple(attributes[name].reshape(-1).tolist())
    sets = _member_sets(attributes.pop("membership_values", None))
    modes = attributes["nodes_modes"]
    if len(sets) < modes.count(_MEMBERSHIP):
        raise InvalidModelError(f"{node}: {len(sets)} membership sets are too few for its nodes")
    following = iter(sets)
    members = tuple(next(following) if mode == _MEMBERSHIP else () for mode in modes)
    attributes.pop("nodes_hitrates", None)
    attributes.setdefault("n_targets", max(attributes["leaf_targetids"]) + 1)
    return ml.TreeEnsemble(**attributes, members=members if sets else ())


def _member_sets(values: Any) -> list[tuple[float, ...]]:
    """Sets of numbers, each ended by a NaN."""
    sets: list[tuple[float, ...]] = []
    current: list[float] = []
    for value in () if values is None else values.reshape(-1).tolist():
        if math.isnan(value):
            sets.append(tuple(current))
            current = []
        else:
            current.append(value)
    return [*sets, tuple(current)] if current else sets


ROWS: tuple[Row, ...] = (
    Row("LabelEncoder", 1, _label_encoder_1, _DOMAIN),
    Row("LabelEncoder", 2, _label_encoder_2, _DOMAIN),
    Row("ArrayFeatureExtractor", 1, direct(ml.ArrayFeatureExtractor), _DOMAIN),
    Row("Binarizer", 1, direct(ml.Binarizer), _DOMAIN),
    Row("TreeEnsemble", 5, _tree_ensemble, _DOMAIN),
)
