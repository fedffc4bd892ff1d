"""Operators of ai.onnx.ml against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from mnnpy import Session, errors
from tests.converter.onnxruntime_cases import Array, Case, check_case, run_onnxruntime

_rng = np.random.default_rng(0)
DOMAIN = "ai.onnx.ml"
X: Array = _rng.standard_normal((9, 3)).astype(np.float32)
WITH_GAPS: Array = np.where(_rng.random((9, 3)) < 0.3, np.float32(np.nan), X)
WORDS: Array = np.array([["a", "c"], ["b", "x"]], dtype=object)
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


def numbers(*shape: int) -> list[float]:
    """Numbers that float32 holds, as attributes are."""
    found: list[float] = _rng.standard_normal(shape).astype(np.float32).reshape(-1).tolist()
    return found


def ml(op: str, x: Array | Sequence[Array], outputs: int = 1, opset: int = 3, **given: Any) -> Case:
    inputs = tuple(x) if isinstance(x, tuple) else (x,)
    names = tuple(f"y{place}" for place in range(outputs))
    return Case(op, inputs, given, names, domain=DOMAIN, opset=opset, atol=1e-5)


def forest(role: str, ids: Sequence[int], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """Three trees of depth 2 and one leaf alone; leaf i votes for ``ids[i]``, the second twice."""
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", *("LEAF",) * 4]
    others = ["BRANCH_GT", "BRANCH_NEQ", "BRANCH_EQ", *("LEAF",) * 4]
    leaves = [(tree, node) for tree in range(3) for node in range(3, 7)] + [(3, 0)]
    votes = [*zip(leaves, ids, strict=False), (leaves[1], ids[-1])]
    return {
        "nodes_treeids": [tree for tree in range(3) for _ in range(7)] + [3],
        "nodes_nodeids": [*range(7)] * 3 + [0],
        "nodes_featureids": [*([0, 1, 2, 0, 0, 0, 0] * 3), 0],
        "nodes_values": numbers(22),
        "nodes_modes": [*modes, *others, *modes, "LEAF"],
        "nodes_truenodeids": [*([1, 3, 5, 0, 0, 0, 0] * 3), 0],
        "nodes_falsenodeids": [*([2, 4, 6, 0, 0, 0, 0] * 3), 0],
        "nodes_missing_value_tracks_true": [*([0, 1, 0, 0, 0, 0, 0] * 3), 0],
        f"{role}_treeids": [tree for (tree, _), _ in votes],
        f"{role}_nodeids": [node for (_, node), _ in votes],
        f"{role}_ids": [target for _, target in votes],
        f"{role}_weights": numbers(len(votes)) if weights is None else weights,
    }


REGRESSION = forest("target", [0, 1, 1, 0] * 3 + [1])
POSITIVE = np.abs(numbers(14)).tolist()

CASES = {
    **{
        f"TreeEnsembleRegressor, {aggregate}": ml(
            "TreeEnsembleRegressor", WITH_GAPS, n_targets=2, aggregate_function=aggregate,
            base_values=[0.5, -0.25], **REGRESSION,
        )
        for aggregate in ("SUM", "AVERAGE", "MIN", "MAX")
    },
    **{
        f"TreeEnsembleRegressor, {transform}": ml(
            "TreeEnsembleRegressor", X, n_targets=2, post_transform=transform, **REGRESSION
        )
        for transform in TRANSFORMS
    },
    **{
        f"TreeEnsembleClassifier, {transform}": ml(
            "TreeEnsembleClassifier", X, 2, classlabels_int64s=[5, 6, 7], base_values=[0.1, 0.2, 0],
            post_transform=transform, **forest("class", [0, 1, 2, 1] * 3 + [2]),
        )
        for transform in TRANSFORMS
    },
    **{
        f"TreeEnsembleClassifier, one score, {transform}, {sign}": ml(
            "TreeEnsembleClassifier", X, 2, classlabels_strings=["no", "yes"], base_values=[0.1],
            post_transform=transform, **forest("class", [0] * 13, weights),
        )
        for transform in ("NONE", "LOGISTIC")
        for sign, weights in (("positive", POSITIVE), ("signed", None))
    },
    "TreeEnsembleClassifier, second class alone": ml(
        "TreeEnsembleClassifier", X, 2, classlabels_int64s=[5, 6],
        **forest("class", [1] * 13, POSITIVE),
    ),
    "TreeEnsembleClassifier, float64": ml(
        "TreeEnsembleClassifier", X.astype(np.float64), 2, classlabels_int64s=[5, 6, 7],
        **forest("class", [0, 1, 2, 1] * 3 + [2], POSITIVE),
    ),
    "LinearRegressor": ml(
        "LinearRegressor", X, opset=1, targets=2, coefficients=numbers(2, 3), intercepts=[0.5, -1.0]
    ),
    **{
        f"LinearClassifier, {transform}": ml(
            "LinearClassifier", X, 2, 1, coefficients=numbers(3, 3), intercepts=numbers(3),
            classlabels_strings=["a", "b", "c"], post_transform=transform,
        )
        for transform in TRANSFORMS
    },
    **{
        f"LinearClassifier, one score, {transform}": ml(
            "LinearClassifier", X, 2, 1, coefficients=numbers(3), intercepts=[0.1],
            classlabels_ints=[4, 8], post_transform=transform,
        )
        for transform in ("NONE", "LOGISTIC")
    },
    **{
        f"SVMRegressor, {kernel}": ml(
            "SVMRegressor", X, opset=1, kernel_type=kernel, kernel_params=[0.4, 0.2, 2.0],
            coefficients=numbers(4), support_vectors=numbers(4, 3), n_supports=4, rho=[0.3],
        )
        for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID")
    },
    "SVMRegressor, one class": ml(
        "SVMRegressor", X, opset=1, kernel_type="RBF", kernel_params=[0.4, 0.0, 3.0], one_class=1,
        coefficients=numbers(4), support_vectors=numbers(4, 3), n_supports=4, rho=[-0.1],
    ),
    "SVMRegressor, linear": ml(
        "SVMRegressor", X, opset=1, coefficients=numbers(3), n_supports=0, rho=[0.3],
        kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0],
    ),
    **{
        f"SVMClassifier, {kernel}, {len(labels)} classes": ml(
            "SVMClassifier", X, 2, 1, kernel_type=kernel, kernel_params=[0.4, 0.2, 2.0],
            coefficients=numbers((len(labels) - 1), 2 * len(labels)),
            support_vectors=numbers(2 * len(labels), 3), rho=numbers(3 if len(labels) > 2 else 1),
            vectors_per_class=[2] * len(labels), classlabels_ints=labels,
        )
        for kernel in ("LINEAR", "RBF")
        for labels in ([5, 6], [5, 6, 7])
    },
    **{
        f"SVMClassifier, probabilities, {len(labels)} classes": ml(
            "SVMClassifier", X, 2, 1, kernel_type="RBF", kernel_params=[0.4, 0.2, 2.0],
            coefficients=numbers((len(labels) - 1), 2 * len(labels)),
            support_vectors=numbers(2 * len(labels), 3), rho=numbers(3 if len(labels) > 2 else 1),
            vectors_per_class=[2] * len(labels), classlabels_strings=labels,
            prob_a=[-1.5, -2.0, -0.5][: 3 if len(labels) > 2 else 1],
            prob_b=[0.1, -0.1, 0.2][: 3 if len(labels) > 2 else 1],
        )
        for labels in (["a", "b"], ["a", "b", "c"])
    },
    "SVMClassifier, linear": ml(
        "SVMClassifier", X, 2, 1, kernel_type="LINEAR", coefficients=numbers(3, 3), rho=[0.2],
        classlabels_ints=[5, 6, 7], kernel_params=[0.0, 0.0, 0.0],
    ),
    **{f"Normalizer, {norm}": ml("Normalizer", X, opset=1, norm=norm) for norm in ("L1", "L2")},
    "Normalizer, MAX": ml("Normalizer", np.abs(X), opset=1, norm="MAX"),
    "Scaler": ml("Scaler", X, opset=1, offset=numbers(3), scale=numbers(3)),
    "Scaler, one number": ml("Scaler", X.astype(np.int64), opset=1, offset=[0.5], scale=[2.0]),
    "Imputer": ml(
        "Imputer", WITH_GAPS, opset=1, imputed_value_floats=[1.0, 2.0, 3.0],
        replaced_value_float=float("nan"),
    ),
    "Imputer, integers": ml(
        "Imputer", np.array([[1, 0, 2], [0, 3, 0]]), opset=1, imputed_value_int64s=[7],
        replaced_value_int64=0,
    ),
    "OneHotEncoder": ml(
        "OneHotEncoder", np.array([[1, 5], [9, 7]]), opset=1, cats_int64s=[5, 7, 1]
    ),
    "OneHotEncoder, strings": ml("OneHotEncoder", WORDS, opset=1, cats_strings=["a", "b", "c"]),
    "OneHotEncoder, floats": ml(
        "OneHotEncoder", np.array([1, 5, 9], np.float32), opset=1, cats_int64s=[5, 1]
    ),
    "LabelEncoder": ml(
        "LabelEncoder", WORDS, opset=2, keys_strings=["a", "b"], values_floats=[0.5, 1.5],
        default_float=-2.0,
    ),
    "CategoryMapper": ml(
        "CategoryMapper", WORDS, opset=1, cats_strings=["a", "b", "c"], cats_int64s=[3, 1, 2]
    ),
    "CategoryMapper, numbers": ml(
        "CategoryMapper", np.array([3, 2, 9]), opset=1, cats_strings=["a", "b", "c"],
        cats_int64s=[3, 1, 2], default_string="?",
    ),
    "ArrayFeatureExtractor": ml("ArrayFeatureExtractor", (X, np.array([[2, 0]])), opset=1),
    "Binarizer": ml("Binarizer", X, opset=1, threshold=0.25),
    "FeatureVectorizer": ml("FeatureVectorizer", (X, X[:, :2]), opset=1, inputdimensions=[3, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_onnxruntime(name: str) -> None:
    check_case(CASES[name], "numpy")


@pytest.mark.parametrize("labels", [[3, 5, 9], ["a", "b", "c"]])
def test_zip_map(labels: list[Any]) -> None:
    """scikit-learn's exporter ends classifiers in one."""
    suffix = "strings" if isinstance(labels[0], str) else "int64s"
    case = ml("ZipMap", X, opset=1, **{f"classlabels_{suffix}": labels})
    model = onnx.load_model_from_string(case.model)
    key = onnx.TensorProto.STRING if isinstance(labels[0], str) else onnx.TensorProto.INT64
    value = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    mapping = onnx.helper.make_map_type_proto(key, value)
    model.graph.output[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(mapping))
    content = model.SerializeToString()
    (wanted,) = run_onnxruntime(content, case.feeds)
    for backend in ("numpy", "numba"):
        assert Session(content, backend=backend).run(case.feeds)["y0"] == wanted


def test_trees_with_two_roots_are_refused() -> None:
    given = {**REGRESSION, "nodes_truenodeids": [*([1, 3, 3, 0, 0, 0, 0] * 3), 0]}
    case = ml("TreeEnsembleRegressor", X, n_targets=2, **given)
    with pytest.raises(errors.InvalidModelError, match="below no other"):
        Session(case.model)


def test_trees_with_a_circle_end() -> None:
    def tensor(array: Array) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(array)

    case = ml(
        *("TreeEnsemble", X[:, :1], 1, 5),
        tree_roots=[0],
        nodes_modes=tensor(np.zeros(2, np.uint8)),
        nodes_featureids=[0, 0],
        nodes_splits=tensor(np.full(2, 9, np.float32)),
        nodes_truenodeids=[1, 0],
        nodes_trueleafs=[0, 0],
        nodes_falsenodeids=[0, 0],
        nodes_falseleafs=[1, 1],
        leaf_targetids=[0],
        leaf_weights=tensor(np.ones(1, np.float32)),
    )
    with pytest.raises(errors.ExecutionError, match="the trees have a circle"):
        Session(case.model, backend="numpy").run(case.feeds)
