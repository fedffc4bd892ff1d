"""Importers of the domain ai.onnx.ml: labels and features."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, OnnxNode, Row, direct
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import STRING, dtype_name
from mnnpy.runtime.ops import ml
from mnnpy.runtime.ops.activation import Sigmoid
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.classes import TRANSFORMS, PostTransform
from mnnpy.runtime.ops.elementwise import Mul, Neg, Sub
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.shaping import Reshape
from mnnpy.runtime.ops.slicing import Concat

DOMAIN = "ai.onnx.ml"
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


def _category_mapper(node: OnnxNode) -> Op:
    """Strings to numbers and back, by a table of pairs."""
    texts, numbers = node.attributes["cats_strings"], node.attributes["cats_int64s"]
    if len(texts) != len(numbers):
        raise InvalidModelError(f"{node}: {len(texts)} strings for {len(numbers)} numbers")
    if node.require_tensor(0).dtype == STRING:
        default = node.attributes.get("default_int64", -1)
        return ml.LabelEncoder(texts, numbers, default, "int64")
    return ml.LabelEncoder(
        numbers, texts, node.attributes.get("default_string", "_Unused"), "string"
    )


def _one_hot_encoder(node: OnnxNode) -> Op:
    return ml.OneHotEncoder(class_labels(node, "cats"), node.attributes.get("zeros", 1))


def _zip_map(node: OnnxNode) -> Op:
    return ml.ZipMap(class_labels(node, "classlabels"))


def class_labels(node: OnnxNode, stem: str) -> tuple[int, ...] | tuple[str, ...]:
    """The attribute ``stem`` in the type in which it is given."""
    for suffix in ("int64s", "ints", "strings"):
        if given := node.attributes.get(f"{stem}_{suffix}"):
            classes: tuple[int, ...] | tuple[str, ...] = given
            return classes
    raise InvalidModelError(f"{node}: no {stem} are given")


def _imputer(node: OnnxNode) -> Op:
    attributes = node.attributes
    if floats := attributes.get("imputed_value_floats"):
        return ml.Imputer(floats, attributes.get("replaced_value_float", 0.0))
    return ml.Imputer(attributes["imputed_value_int64s"], attributes.get("replaced_value_int64", 0))


def _scaler(node: OnnxNode) -> Imported:
    """(x - offset) * scale, both one number or one per feature; float32 out."""
    make = Composition(node)
    offset, scale = (
        np.asarray(node.attributes.get(name, (neutral,)), np.float32)
        for name, neutral in (("offset", 0.0), ("scale", 1.0))
    )
    x = make(Cast("float32"), node.require_input(0))
    return make.result(Mul(), make(Sub(), x, offset), scale)


def _feature_vectorizer(node: OnnxNode) -> Imported:
    """Features side by side, as many of each input as ``inputdimensions`` says; float32 out."""
    make = Composition(node)
    counts = node.attributes["inputdimensions"]
    if len(counts) != len(node.reads):
        raise InvalidModelError(f"{node}: {len(counts)} dimensions for {len(node.reads)} inputs")
    pieces = []
    for name, count in zip(node.reads, counts, strict=True):
        rows = make(Reshape(), make(Cast("float32"), name), np.asarray([-1, count], np.int64))
        pieces.append(rows)
    return make.result(Concat(1), *pieces)


def post_transform(node: OnnxNode) -> str:
    """The attribute of that name, checked."""
    name: str = node.attributes.get("post_transform", "NONE")
    if name not in TRANSFORMS:
        raise InvalidModelError(f"{node}: post_transform {name!r} is none of {TRANSFORMS}")
    return name


def classified(
    make: Composition,
    node: OnnxNode,
    places: str,
    scores: str,
    second: str | None = None,
) -> Imported:
    """Labels and scores. ``second`` makes two scores of one: "complement" or "negative"."""
    labels = class_labels(node, "classlabels")
    table = np.asarray(labels, STRING if isinstance(labels[0], str) else np.int64)
    make(Gather(), table, places, into=node.outputs[0])
    if (wanted := node.output(1)) is None:
        return make.imported
    transform = post_transform(node)
    if second is None:
        make(PostTransform(transform), scores, into=wanted)
        return make.imported
    if transform == "LOGISTIC":
        pair = make(Concat(1), make(Neg(), scores), scores)
        make(Sigmoid(), pair, into=wanted)
        return make.imported
    one = np.asarray(1, np.float32)
    other = make(Neg(), scores) if second == "negative" else make(Sub(), one, scores)
    make(Concat(1), other, scores, into=wanted)
    return make.imported


ROWS: tuple[Row, ...] = (
    Row("LabelEncoder", 1, _label_encoder_1, DOMAIN),
    Row("LabelEncoder", 2, _label_encoder_2, DOMAIN),
    Row("CategoryMapper", 1, _category_mapper, DOMAIN),
    Row("ArrayFeatureExtractor", 1, direct(ml.ArrayFeatureExtractor), DOMAIN),
    Row("Binarizer", 1, direct(ml.Binarizer), DOMAIN),
    Row("Normalizer", 1, direct(ml.Normalizer), DOMAIN),
    Row("Scaler", 1, _scaler, DOMAIN),
    Row("Imputer", 1, _imputer, DOMAIN),
    Row("OneHotEncoder", 1, _one_hot_encoder, DOMAIN),
    Row("FeatureVectorizer", 1, _feature_vectorizer, DOMAIN),
    Row("ZipMap", 1, _zip_map, DOMAIN),
)
