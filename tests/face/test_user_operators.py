"""Operators of a user's own: converted, run, saved, loaded, pickled, and refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from mnnpy import OperatorLibrary, Session, convert, errors, load_model
from mnnpy.runtime.graph.types import FLOAT64, TensorType, Value
from mnnpy.runtime.model_file import save_model
from mnnpy.runtime.plan_file import save_plan

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
BETA = 0.5
SQUAREPLUS = (X + np.sqrt(X * X + np.float32(BETA))) / 2


def infer_squareplus(x: Value, beta: float = 4.0) -> TensorType:
    return x.tensor


def squareplus(xp: Any, x: Any, beta: float = 4.0) -> Any:
    """(x + sqrt(x^2 + beta)) / 2 (Barron, 2021)."""
    return (x + xp.sqrt(x * x + xp.asarray(beta, dtype=x.dtype))) / 2


def infer_take_first(x: Value, count: Value) -> tuple[TensorType, TensorType]:
    (size,) = count.ints()
    return TensorType(x.dtype, (size, *x.shape[1:])), x.tensor


def take_first(xp: Any, x: Any, count: Any) -> tuple[Any, Any]:
    return x[: int(count)], -x


@pytest.fixture
def library() -> OperatorLibrary:
    operators = OperatorLibrary()
    operators.register_operator(
        "com.example", "Squareplus", infer=infer_squareplus, reference=squareplus
    )
    operators.register_operator(
        "com.example", "TakeFirst", infer=infer_take_first, reference=take_first, shape_inputs=(1,)
    )
    return operators


def model(body: str, inputs: str = "float[n, 4] x", version: int = 1) -> bytes:
    opsets = f'["" : 17, "com.example" : {version}, "com.microsoft" : 1]'
    text = f"<ir_version: 8, opset_import: {opsets}> g ({inputs}) => (y) {{ {body} }}"
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


ACTIVATION = model(f"h = com.example.Squareplus <beta = {BETA}> (x) y = Relu (h)")
BRANCH = model(
    """c = Constant <value = bool {1}> ()
       y = If (c) <
         then_branch = t () => (a) { a = com.example.Squareplus <beta = 0.5> (x) },
         else_branch = e () => (b) { b = Neg (x) } >"""
)
TAKEN = model("y, z = com.example.TakeFirst (x, k)", "float[n, 4] x, int64 k")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_runs_from_onnx(library: OperatorLibrary, backend: str) -> None:
    session = Session(ACTIVATION, backend=backend, operators=library)
    np.testing.assert_allclose(session.run(X)["y"], SQUAREPLUS, rtol=1e-6)
    assert "com.example.Squareplus" in {node.op.kind for node in session.graph.nodes}


def test_runs_in_a_branch(library: OperatorLibrary) -> None:
    np.testing.assert_allclose(
        Session(BRANCH, operators=library).run(X)["y"], SQUAREPLUS, rtol=1e-6
    )


def test_content_decides_the_shape(library: OperatorLibrary) -> None:
    session = Session(TAKEN, backend="numpy", operators=library)
    for count in (1, 3):
        found = session.run({"x": X, "k": np.asarray(count)})["y"]
        np.testing.assert_array_equal(found, X[:count])


@pytest.mark.parametrize("content", [ACTIVATION, BRANCH], ids=["graph", "branch"])
def test_saved_and_loaded(library: OperatorLibrary, content: bytes, tmp_path: Path) -> None:
    path, again = tmp_path / "model.mnnpy", tmp_path / "again.mnnpy"
    graph = convert(content, path, operators=library)
    assert load_model(path, operators=library) == graph
    found = Session(path, operators=library).run(X)["y"]
    np.testing.assert_allclose(found, SQUAREPLUS, rtol=1e-6)
    save_model(graph, again)
    assert again.read_bytes() == path.read_bytes()
    for load in (load_model, Session):
        with pytest.raises(errors.ModelFormatError, match=r"Squareplus'; .* operators=\.\.\."):
            load(path)


def test_plan_is_given_again(library: OperatorLibrary, tmp_path: Path) -> None:
    session = Session(ACTIVATION, backend="numpy", operators=library)
    save_plan(session.plan([3, 4]), tmp_path / "plan.json")
    planned = Session(ACTIVATION, backend="numpy", plan=tmp_path / "plan.json", operators=library)
    np.testing.assert_allclose(planned.run(X)["y"], SQUAREPLUS, rtol=1e-6)


@pytest.mark.parametrize("saved", [True, False])
def test_session_is_pickled(library: OperatorLibrary, saved: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.mnnpy"
    graph = convert(ACTIVATION, path, operators=library)
    session = Session(path if saved else graph, operators=library)
    copy = pickle.loads(pickle.dumps(session))
    assert copy.graph == graph
    np.testing.assert_array_equal(copy.run(X)["y"], session.run(X)["y"])


def test_is_known_to_its_library_only(library: OperatorLibrary) -> None:
    for operators in (None, OperatorLibrary()):
        with pytest.raises(errors.UnsupportedOperatorError, match=r"com\.example\.Squareplus"):
            Session(ACTIVATION, operators=operators)


def test_wins_over_what_mnnpy_imports() -> None:
    operators = OperatorLibrary()
    operators.register_operator(
        "com.microsoft", "QuickGelu", infer=infer_squareplus, reference=lambda xp, x: -x
    )
    content = model("y = com.microsoft.QuickGelu (x)")
    np.testing.assert_array_equal(Session(content, operators=operators).run(X)["y"], -X)


@pytest.mark.parametrize(("version", "factor"), [(1, 2), (2, 2), (3, 5), (4, 5)])
def test_version_of_the_domain_decides(version: int, factor: int) -> None:
    operators = OperatorLibrary()
    for since, times in ((3, 5), (1, 2)):
        operators.register_operator(
            "com.example",
            "Times",
            infer=infer_squareplus,
            reference=lambda xp, x, times=times: x * np.float32(times),
            since_version=since,
        )
    content = model("y = com.example.Times (x)", version=version)
    np.testing.assert_array_equal(Session(content, operators=operators).run(X)["y"], X * factor)


WRONG: dict[str, tuple[Callable[..., Any], Callable[..., Any], type[Exception], str]] = {
    "type": (
        lambda x: TensorType(FLOAT64, x.shape), lambda xp, x: x, errors.ExecutionError,
        r"gives float32\(3, 4\) as output 0, its infer says float64\(3, 4\)",
    ),
    "shape": (
        lambda x: x.tensor, lambda xp, x: x[:1], errors.ExecutionError, r"float32\(1, 4\)",
    ),
    "count": (
        lambda x: (x.tensor, x.tensor), lambda xp, x: x, errors.ExecutionError,
        "gives 1 outputs, its infer 2",
    ),
    "failing reference": (
        lambda x: x.tensor, lambda xp, x: 1 / 0, errors.ExecutionError, "division by zero",
    ),
    "failing infer": (
        lambda x: x.nothing, lambda xp, x: x, errors.ShapeError, "Wrong node .*nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_functions(name: str) -> None:
    infer, reference, error, message = WRONG[name]
    operators = OperatorLibrary()
    operators.register_operator("com.example", "Wrong", infer=infer, reference=reference)
    with pytest.raises(error, match=message):
        Session(model("y = com.example.Wrong (x)"), "numpy", operators=operators).run(X)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({"domain": "com.example", "name": "Squareplus"}, "registered already"),
    "mnnpy's own": ({"domain": "", "name": "Relu"}, "'Relu' itself"),
    "no name": ({"domain": "com.example", "name": ""}, "a name, two functions"),
    "no function": ({"domain": "com.example", "name": "A", "infer": None}, "two functions"),
    "no version": ({"domain": "com.example", "name": "A", "since_version": 0}, "at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, library: OperatorLibrary) -> None:
    given, message = REFUSED[name]
    functions = {"infer": infer_squareplus, "reference": squareplus}
    with pytest.raises(errors.ConfigError, match=message):
        library.register_operator(**{**functions, **given})


def test_attribute_that_no_file_holds(library: OperatorLibrary) -> None:
    content = model("y = com.example.Squareplus <beta = float {0.5}> (x)")
    with pytest.raises(errors.UnsupportedOperatorError, match=r"'beta' is a ndarray.*an input"):
        Session(content, operators=library)
