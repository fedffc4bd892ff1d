"""Importers of the domain ai.onnx.ml: linear models and support vector machines."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mnnpy.converter.importers.base import Composition, Imported, OnnxNode, Row
from mnnpy.converter.importers.ml import DOMAIN, class_labels, classified, post_transform
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.activation import Tanh
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.classes import Classes, PairwiseProbabilities, PostTransform
from mnnpy.runtime.ops.elementwise import Add, Exp, Mul, Pow, Sub, Where
from mnnpy.runtime.ops.logic import Greater
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.reduction import ReduceSumSquare
from mnnpy.runtime.ops.shaping import Unsqueeze


def _linear_scores(make: Composition, node: OnnxNode, count: int) -> str:
    """Name of x times the coefficients, (count, features), plus intercepts, in float32."""
    x = make(Cast("float32"), node.require_input(0))
    weights = np.asarray(node.attributes["coefficients"], np.float32).reshape(count, -1)
    scores = make(MatMul(), x, weights.T.copy())
    intercepts = node.attributes.get("intercepts")
    return make(Add(), scores, np.asarray(intercepts, np.float32)) if intercepts else scores


def _linear_regressor(node: OnnxNode) -> Imported:
    make = Composition(node)
    scores = _linear_scores(make, node, node.attributes.get("targets", 1))
    return make.result(PostTransform(post_transform(node)), scores)


def _linear_classifier(node: OnnxNode) -> Imported:
    """Scores per class, or one score for two classes."""
    make = Composition(node)
    count = len(class_labels(node, "classlabels"))
    intercepts, weights = (node.attributes.get(n, ()) for n in ("intercepts", "coefficients"))
    one = count == 2 and (
        len(intercepts) == 1 if intercepts else len(weights) == node.require_size(0, -1)
    )
    scores = _linear_scores(make, node, 1 if one else count)
    places = make(Classes(0.0 if one else None), scores)
    return classified(make, node, places, scores, "complement" if one else None)


def _kernels(make: Composition, node: OnnxNode, x: str, vectors: Array) -> str:
    """Name of the kernel of every row of x with every support vector: (n, vectors)."""
    gamma, shift, degree = node.attributes.get("kernel_params") or (0.0, 0.0, 0.0)
    kind = node.attributes.get("kernel_type", "LINEAR").upper()
    g = np.asarray(gamma, np.float32)
    if kind == "RBF":
        rows = make(Unsqueeze(), x, np.asarray([1], np.int64))
        squares = make(ReduceSumSquare(0), make(Sub(), rows, vectors), np.asarray([2], np.int64))
        return make(Exp(), make(Mul(), squares, -g))
    products = make(MatMul(), x, vectors.T.copy())
    if kind == "LINEAR":
        return products
    moved = make(Add(), make(Mul(), products, g), np.asarray(shift, np.float32))
    if kind == "POLY":
        return make(Pow(), moved, np.asarray(degree, np.float32))
    if kind == "SIGMOID":
        return make(Tanh(), moved)
    raise InvalidModelError(f"{node}: kernel_type {kind!r} is none of LINEAR, POLY, RBF, SIGMOID")


def _svm_regressor(node: OnnxNode) -> Imported:
    """Kernels with the support vectors, weighted and moved; without vectors, a linear model."""
    make, given = Composition(node), node.attributes
    x = make(Cast("float32"), node.require_input(0))
    weights = np.asarray(given["coefficients"], np.float32)
    if count := given.get("n_supports", 0):
        vectors = np.asarray(given["support_vectors"], np.float32).reshape(count, -1)
        x = _kernels(make, node, x, vectors)
    y = make(MatMul(), x, weights.reshape(-1, 1))
    y = make(Add(), y, np.asarray(given["rho"][:1], np.float32))
    if given.get("one_class", 0):
        above = make(Greater(), y, np.asarray(0, np.float32))
        y = make(Where(), above, np.asarray(1, np.float32), np.asarray(-1, np.float32))
    return make.result(PostTransform(post_transform(node)), y)


def _svm_classifier(node: OnnxNode) -> Imported:
    """Every pair of classes has a score, and the class that wins most pairs is the label.

    Without support vectors it is a linear model with scores per class.
    """
    make, given = Composition(node), node.attributes
    labels = class_labels(node, "classlabels")
    x = make(Cast("float32"), node.require_input(0))
    weights = np.asarray(given["coefficients"], np.float32)
    rho = np.asarray(given["rho"], np.float32)
    per_class = given.get("vectors_per_class", ())
    if not sum(per_class):
        scores = make(MatMul(), x, weights.reshape(len(labels), -1).T.copy())
        scores = make(Add(), scores, rho[:1])
        return classified(make, node, make(Classes(), scores), scores)
    vectors = np.asarray(given["support_vectors"], np.float32).reshape(sum(per_class), -1)
    pairs = list(combinations(range(len(per_class)), 2))
    kernels = _kernels(make, node, x, vectors)
    scores = make(MatMul(), kernels, _pair_weights(weights, per_class))
    scores = make(Add(), scores, rho[: len(pairs)])
    first = make(Greater(), scores, np.asarray(0, np.float32))
    won = make(Cast("float32"), first)
    votes = make(Add(), make(MatMul(), won, _wins(pairs, len(per_class))), _lost(pairs, per_class))
    places = make(Classes(), votes)
    if slopes := given.get("prob_a"):
        op = PairwiseProbabilities(len(per_class), slopes, given["prob_b"])
        return classified(make, node, places, make(op, scores))
    return classified(make, node, places, scores, "negative" if len(pairs) == 1 else None)


def _pair_weights(weights: Array, per_class: tuple[int, ...]) -> Array:
    """Weight of every support vector in every pair of classes, (vectors, pairs), from libsvm's.

    Row j - 1 of class i's vectors serves the pair (i, j), row i of class j's the same pair.
    """
    ends = np.cumsum(per_class)
    rows = weights.reshape(len(per_class) - 1, -1)
    pairs = list(combinations(range(len(per_class)), 2))
    table = np.zeros((rows.shape[1], len(pairs)), np.float32)
    for pair, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            part = slice(ends[own] - per_class[own], ends[own])
            table[part, pair] = rows[row, part]
    return table


def _wins(pairs: list[tuple[int, int]], classes: int) -> Array:
    """What each pair that its first class wins changes in the votes: (pairs, classes)."""
    table = np.zeros((len(pairs), classes), np.float32)
    for pair, (i, j) in enumerate(pairs):
        table[pair, i], table[pair, j] = 1, -1
    return table


def _lost(pairs: list[tuple[int, int]], per_class: tuple[int, ...]) -> Array:
    """The votes where every pair is won by its second class."""
    return np.asarray([sum(j == c for _, j in pairs) for c in range(len(per_class))], np.float32)


ROWS: tuple[Row, ...] = (
    Row("LinearRegressor", 1, _linear_regressor, DOMAIN),
    Row("LinearClassifier", 1, _linear_classifier, DOMAIN),
    Row("SVMRegressor", 1, _svm_regressor, DOMAIN),
    Row("SVMClassifier", 1, _svm_classifier, DOMAIN),
)
