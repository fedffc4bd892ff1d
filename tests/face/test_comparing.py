"""Differences and their verdicts; what is tried on a model."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mnnpy.comparing import Tolerances, difference
from mnnpy.runtime.errors import ConfigError, FeedError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import DTYPES, SequenceType, TensorType, Type
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.elementwise import Identity
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.sampling import index_limits, random_feeds, shape_sets

F32, NAN, INF = np.float32, np.nan, np.inf
BF16 = ml_dtypes.bfloat16
BIG = 2**62

JUDGED: dict[str, tuple[Any, Any, bool, str]] = {
    "equal": (np.ones(3, F32), np.ones(3, F32), True, "ok"),
    "within": (np.array([100, 0], F32), np.array([100, 0.009], F32), True, "ok"),
    "beyond": (np.array([100, 0], F32), np.array([100, 0.02], F32), False, "beyond 0.0001"),
    "zeros, nearly": (np.zeros(2, F32), np.full(2, 1e-6, F32), True, "ok"),
    "zeros, no longer": (np.zeros(2, F32), np.ones(2, F32), False, "beyond 0.0001"),
    "float64": (np.ones(2), np.ones(2) + 1e-7, False, "beyond 1e-09"),
    "float16": (np.ones(2, np.float16), np.full(2, 1.005, np.float16), True, "ok"),
    "bfloat16": (np.ones(2, BF16), np.full(2, 1.2, BF16), False, "beyond 0.05"),
    "float8": (
        np.ones(1, ml_dtypes.float8_e4m3fn),
        np.full(1, 1.125, ml_dtypes.float8_e4m3fn),
        True,
        "ok",
    ),
    "complex": (np.array([1j]), np.array([-1j]), False, "beyond 1e-09"),
    "NaN at the same place": (np.array([NAN, 1], F32), np.array([NAN, 1], F32), True, "ok"),
    "NaN elsewhere": (
        np.array([NAN, 1], F32),
        np.array([1, NAN], F32),
        False,
        "NaN at other places",
    ),
    "an infinity lost": (np.array([INF, 1], F32), np.array([3e38, 1], F32), False, "infinity at"),
    "its sign lost": (np.array([INF, 1], F32), np.array([-INF, 1], F32), False, "another sign"),
    "quantised, one off": (np.uint8([7, 8]), np.uint8([7, 9]), True, "ok, off by one"),
    "quantised, two off": (np.int8([7, -8]), np.int8([7, -6]), False, "not equal"),
    "quantised, wrapped": (np.uint8([255]), np.uint8([0]), False, "not equal"),
    "int4": (np.ones(2, ml_dtypes.int4), np.zeros(2, ml_dtypes.int4), True, "off by one"),
    "integers, one off": (np.array([5]), np.array([6]), False, "not equal"),
    "large integers": (np.array([BIG]), np.array([BIG + 1]), False, "not equal"),
    "truth": (np.array([True]), np.array([False]), False, "not equal"),
    "texts": (np.array(["a"], object), np.array(["b"], object), False, "1 of 1 texts"),
    "shapes": (
        np.ones((2, 1), F32),
        np.ones(2, F32),
        False,
        "expected float32(2, 1), got float32(2,)",
    ),
    "types": (np.ones(1, F32), np.ones(1), False, "expected float32(1,), got float64(1,)"),
    "nothing": (np.zeros((0, 3), F32), np.zeros((0, 3), F32), True, "ok"),
    "a scalar": (np.array(2, F32), np.float32(2), True, "ok"),
    "sequences": ([np.ones(1, F32), np.ones(2, F32)], [np.ones(1, F32)] * 2, False, "expected"),
    "their lengths": ([np.ones(1, F32)], [], False, "expected a list of 1, got a list of 0"),
    "an empty optional": (None, None, True, "ok"),
    "an optional": (None, np.ones(1, F32), False, "expected NoneType, got float32(1,)"),
}


@pytest.mark.parametrize("case", JUDGED)
def test_a_difference_is_judged(case: str) -> None:
    expected, found, fits, verdict = JUDGED[case]
    judged = difference("y", expected, found, Tolerances())
    assert (judged.name, judged.fits) == ("y", fits)
    assert verdict in judged.verdict


def test_the_error_is_relative_to_the_largest() -> None:
    judged = difference("y", np.array([-4, 1], F32), np.array([-4, 2], F32), Tolerances())
    assert (judged.absolute, judged.relative) == (1.0, 0.25)


@pytest.mark.parametrize(
    ("texts", "dtype", "tolerance"),
    [
        ((), "float32", 1e-4),
        ((), "int8", 0.0),
        ((), "bool", 0.0),
        ((), "float8_e5m2", 0.25),
        (("1e-3",), "float32", 1e-3),
        (("1e-3",), "bfloat16", 1e-3),
        (("1e-3",), "int64", 0.0),
        (("float16=0.5", "1e-3"), "float16", 0.5),
        (("int64=0.5",), "int64", 0.5),
    ],
)
def test_tolerances(texts: tuple[str, ...], dtype: str, tolerance: float) -> None:
    assert Tolerances.parsed(texts).of(DTYPES[dtype]) == tolerance


@pytest.mark.parametrize("text", ["", "a", "float99=1", "-1", "nan", "=1e-3x", "float32="])
def test_bad_tolerances(text: str) -> None:
    with pytest.raises(ConfigError, match="write 1e-3"):
        Tolerances.parsed([text])


def graph_of(nodes: tuple[Node, ...] = (), **inputs: Type) -> Graph:
    table = np.zeros((50, 4), F32)
    return Graph(nodes, inputs, (), {"table": table})


N, T = SymbolicDim.named("n"), SymbolicDim.named("t")


@pytest.mark.parametrize(
    ("inputs", "given", "sets"),
    [
        ({"x": (2, 3)}, {}, [{"x": (2, 3)}]),
        ({"x": (N, 3)}, {}, [{"x": (1, 3)}, {"x": (3, 3)}]),
        (
            {"x": (N, T), "y": (N, T + 1)},
            {},
            [{"x": (1, 8), "y": (1, 9)}, {"x": (3, 13), "y": (3, 14)}],
        ),
        ({"x": (N, 3, T, T)}, {}, [{"x": (1, 3, 64, 64)}, {"x": (3, 3, 96, 96)}]),
        ({"x": (N, T), "y": (2 * T,)}, {"x": (5, 7)}, [{"x": (5, 7), "y": (14,)}]),
    ],
)
def test_shapes_to_try(inputs: Any, given: Any, sets: Any) -> None:
    types = {name: TensorType(DTYPES["float32"], shape) for name, shape in inputs.items()}
    assert shape_sets(graph_of(**types), given) == sets


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "float8_e8m0fnu"])
def test_random_content_of_every_type(name: str) -> None:
    graph = graph_of(x=TensorType(DTYPES[name], (40,)), scalar=TensorType(DTYPES[name], ()))
    first, again, other = (
        random_feeds(graph, {"x": (40,), "scalar": ()}, seed) for seed in (1, 1, 2)
    )
    assert first["x"].dtype == DTYPES[name]
    assert first["scalar"].shape == ()
    assert (first["x"] == again["x"]).all()
    assert (first["x"] != other["x"]).any()
    assert len(set(first["x"].tolist())) > 1
    if name.startswith(("float", "int8")):
        assert first["x"].astype(float).min() < 0 < first["x"].astype(float).max()


def test_indices_stay_in_their_table() -> None:
    nodes = (
        Node("cast", Cast("int64"), ("ids",), ("wide",)),
        Node("same", Identity(), ("wide",), ("indices",)),
        Node("look up", Gather(0), ("table", "indices"), ("rows",)),
        Node("columns", Gather(-1), ("table", "places"), ("picked",)),
    )
    int32 = DTYPES["int32"]
    graph = graph_of(nodes, ids=TensorType(int32, (N,)), places=TensorType(int32, (N,)))
    assert index_limits(graph) == {"ids": 50, "places": 4}
    feeds = random_feeds(graph, {"ids": (500,), "places": (500,)}, 0)
    assert (feeds["ids"].min(), feeds["ids"].max()) == (0, 49)
    assert (feeds["places"].min(), feeds["places"].max()) == (0, 3)


def test_what_is_no_tensor_must_be_given() -> None:
    with pytest.raises(FeedError, match="give it as a file"):
        random_feeds(graph_of(x=SequenceType(None)), {}, 0)
