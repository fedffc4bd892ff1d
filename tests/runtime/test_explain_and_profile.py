"""Plans in words, and profiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.errors import ConfigError, PlanError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.reduction import ReduceSum
from mnnpy.runtime.ops.selection import NonZero
from mnnpy.runtime.preinference.explain import nbytes_text, seconds_text
from mnnpy.runtime.session import Session
from mnnpy.runtime.text_table import text_table

X = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture
def session() -> Session:
    weights = np.full((4, 3, 3, 3), 0.1, np.float32)
    nodes = (
        Node("conv", Conv(pads=(1, 1, 1, 1)), ("x", "w"), ("c",)),
        Node("relu", Relu(), ("c",), ("r",)),
        Node("sum", Add(), ("c", "r"), ("y",)),
    )
    inputs = {"x": TensorType(FLOAT32, X.shape)}
    return Session(Graph(nodes, inputs, ("y",), {"w": weights}), backend="numpy")


def test_plan_table(session: Session) -> None:
    plan = session.plan()
    lines = plan.explain().splitlines()
    for column in ("step", "operator", "output", "backend", "scheme", "config", "layout"):
        assert column in lines[0]
    assert len(lines) == 2 + len(plan.steps) + 1 + 2
    assert "1x4x8x8" in lines[2]
    assert f"{len(plan.steps)} steps ({len(plan.steps)} on numpy)" in lines[-2]
    assert "lower bound" in lines[-1]
    assert "workspace" in lines[-1]


def test_one_step(session: Session) -> None:
    plan = session.plan()
    text = plan.explain("conv")
    assert text == plan.explain(0)
    rejected = plan.steps[0].choice.rejected
    assert len(text.splitlines()) >= len(rejected) + 4
    for entry in rejected:
        assert entry.scheme in text
        assert entry.reason is None or entry.reason in text
    assert "chosen" in text


@pytest.mark.parametrize("step", [99, -1, "nonesuch", "con"])
def test_unknown_step(session: Session, step: int | str) -> None:
    with pytest.raises(PlanError, match="step"):
        session.plan().explain(step)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 us"), (1.5e-9, "0.0015 us"), (2e-5, "20 us"), (0.0123, "12.3 ms"), (125.2, "125 s")],
)
def test_seconds_text(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (5 << 40, "5120 GiB")]
)
def test_nbytes_text(nbytes: int, text: str) -> None:
    assert nbytes_text(nbytes) == text


def test_text_table_aligns_and_cuts() -> None:
    table = text_table(("name", "count"), [["a" * 30 + "b" * 30, "7"], ["c", "12"]], ("count",))
    lines = table.splitlines()
    assert len(lines[2].split("  ")[0]) == 48
    assert lines[2].startswith("aaaaaaaaaa..")
    assert [line[-2:] for line in lines[2:]] == [" 7", "12"]


def test_profile(session: Session, tmp_path: Path) -> None:
    profile = session.profile(X, repeats=3)
    plan = session.plan()
    assert [entry.step.node.name for entry in profile.steps] == [s.node.name for s in plan.steps]
    assert len(profile.runs) == 3
    for entry in profile.steps:
        assert len(entry.seconds) == 3
        assert 0 < entry.best <= entry.median
    assert profile.predicted == plan.seconds
    lines = profile.table().splitlines()
    assert len(lines) == 2 + len(plan.steps) + 3
    assert "100" in "".join(lines) or "%" in lines[2]
    path = tmp_path / "trace.json"
    profile.write_trace(path)
    _check_trace(json.loads(path.read_text()), len(plan.steps) * 3)


def test_profile_over_segments() -> None:
    """A result whose size the data decides ends a segment; its steps are timed all the same."""
    nodes = (
        Node("nonzero", NonZero(), ("x",), ("found",)),
        Node("sum", ReduceSum(keepdims=0), ("found",), ("total",)),
    )
    graph = Graph(nodes, {"x": TensorType(FLOAT32, (2, 3))}, ("total",))
    session = Session(graph, backend="numpy")
    profile = session.profile(np.eye(2, 3, dtype=np.float32), repeats=2)
    assert profile.steps[0].step.node.name == "nonzero"
    assert len(profile.steps) >= 2


def test_profile_refuses_no_repeats(session: Session) -> None:
    with pytest.raises(ConfigError, match="repeats"):
        session.profile(X, repeats=0)


def _check_trace(trace: dict[str, Any], count: int) -> None:
    """The trace event format: complete events that do not overlap within their row."""
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == count
    end = 0.0
    for event in events:
        assert event["ts"] >= end - 1e-6
        assert event["dur"] > 0
        end = event["ts"] + event["dur"]
