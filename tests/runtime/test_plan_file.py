"""Plan files: plans come back equal, and malformed ones are refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime.contracts import Choice, Cost, Rejected
from mnnpy.runtime.errors import PlanError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    OptionalType,
    SequenceType,
    TensorType,
    UnknownType,
)
from mnnpy.runtime.layouts import Layout
from mnnpy.runtime.ops.activation import LeakyRelu, Relu
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.fused import Copy, Fused
from mnnpy.runtime.plan_file import load_plan, plan_to_json, save_plan
from mnnpy.runtime.preinference.plan import MemoryPlan, Parts, Plan, Slot, Step
from mnnpy.runtime.session import Session

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"
SHAPES = {"image": (2, 1, 8, 8)}

PRINT_PLAN = """
import json, sys
import onnx
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime.plan_file import plan_to_json
from mnnpy.runtime.session import Session
graph = read_graph(onnx.load(sys.argv[1]))
json.dump(plan_to_json(Session(graph, backend="numpy").plan({"image": (2, 1, 8, 8)})), sys.stdout)
"""


@pytest.fixture(scope="module")
def digits() -> Graph:
    return read_graph(onnx.load(DIGITS))


@pytest.fixture(scope="module")
def digits_plan(digits: Graph) -> Plan:
    return Session(digits, backend="numpy").plan(SHAPES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.plan.json"


def rich_plan() -> Plan:
    """A plan with something in every field."""
    region = Graph(
        (
            Node("add", Add(), ("x", "c"), ("s",)),
            Node("leaky", LeakyRelu(math.nan), ("s",), ("y",)),
        ),
        {"x": TensorType(FLOAT32, (2, 3)), "u": UnknownType()},
        ("y",),
        {
            "c": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
            "e": np.zeros((0, 2), DTYPES["int4"]),
            "w": np.array([["a", "\udc80"]], dtype=object),
        },
    )
    blocked = Layout("blocked", 16, 1, -math.inf)
    rejected = (
        Rejected("numba", "winograd", (("tile", 4),), "stride 2", None),
        Rejected("numba", "direct", (("order", "nhw"),), None, Cost(math.inf, 1, 0.5, True)),
    )
    fused = Choice(
        "numpy", "epilogue", (("split", 2),), (Layout(),) * 2, (blocked,), Cost(1e-5), rejected
    )
    copied = Choice("cuda", "copy", (), (blocked,), (Layout("channels_last"),), Cost(math.nan))
    steps = (
        Step(Node("f", Fused(region), ("x", None), ("y",)), fused, aliases=((0, 0),)),
        Step(Node("y@gpu", Copy(), ("y",), ("y@gpu",)), copied),
    )
    slot = Slot("host", 64, 128, 0, 1)
    memory = MemoryPlan(
        {"host": 256, "gpu": 64},
        {"y": slot, "x": Slot("host", 0, 24, 0, 0)},
        {"y": blocked, "x": Layout()},
        (Slot("gpu", 0, 64, 0, 0), None),
        {"host": 192, "gpu": 64},
    )
    inputs = {
        "x": TensorType(FLOAT32, (2, 3)),
        "s": SequenceType(TensorType(FLOAT32, (SymbolicDim.named("n"),))),
        "o": OptionalType(None),
    }
    versions = {"mnnpy": "0.1.0", "numpy": "2"}
    parts = Parts(4, 2, ((1, 0.25), (4, math.inf)), "it may mix samples")
    outputs, objects = {"y": "y@gpu"}, frozenset("so")
    return Plan("0123", inputs, outputs, steps, memory, objects, False, versions, parts)


def without_costs(data: Any) -> Any:
    """JSON of a plan less what explains it."""
    if isinstance(data, list):
        return [without_costs(entry) for entry in data]
    if isinstance(data, dict):
        dropped = ("cost", "rejected", "versions")
        return {key: without_costs(entry) for key, entry in data.items() if key not in dropped}
    return data


def test_plans_survive(path: Path) -> None:
    plan = rich_plan()
    save_plan(plan, path)
    loaded = load_plan(path)
    assert loaded == plan
    assert repr(replace(loaded, objects=plan.objects)) == repr(plan), "sets have no order"
    assert loaded.versions == plan.versions
    region = loaded.steps[0].node.op.graph  # type: ignore[attr-defined]
    assert region.constants["c"].shape == (2, 3)
    assert region.constants["w"].tolist() == [["a", "\udc80"]]
    assert not region.constants["c"].flags.writeable


@pytest.mark.parametrize("fused", [True, False])
def test_plans_of_a_model_survive(fused: bool, path: Path) -> None:
    nodes = (Node("a", Add(), ("x", "x"), ("s",)), Node("r", Relu(), ("s",), ("y",)))
    graph = Graph(nodes, {"x": TensorType(FLOAT32, (4, 4))}, ("y",))
    plan = Session(graph, backend="numpy").plan()
    if fused:
        (first, *_) = plan.steps
        node = replace(first.node, op=Fused(graph))
        plan = replace(plan, steps=(replace(first, node=node), *plan.steps[1:]))
    save_plan(plan, path)
    assert load_plan(path) == plan


def test_a_session_takes_a_plan_file(digits: Graph, digits_plan: Plan, path: Path) -> None:
    save_plan(digits_plan, path)
    assert load_plan(path) == digits_plan
    image = np.random.default_rng(0).random(SHAPES["image"], dtype=np.float32)
    with (
        Session(digits, backend="numpy", plan=path) as planned,
        Session(digits, backend="numpy") as free,
    ):
        (expected,), (found,) = free.run(image).values(), planned.run(image).values()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_same_inputs_give_the_same_plan(seed: str, digits_plan: Plan) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PRINT_PLAN, str(DIGITS)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    found = without_costs(json.loads(printed.stdout))
    expected = without_costs(json.loads(json.dumps(plan_to_json(digits_plan))))
    assert json.dumps(found) == json.dumps(expected)


def at(*path: str | int, to: Any) -> Callable[[Any], None]:
    """A change of one place of the JSON."""

    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = to

    return change


STEP = ("plan", "steps", 0)
MALFORMED: dict[str, tuple[Callable[[Any], object], str]] = {
    "format": (at("format", to="mnnpy"), "not a plan"),
    "version": (at("version", to=2), "format version 2"),
    "no versions": (at("plan", "versions", to={}), "made by mnnpy None"),
    "other mnnpy": (at("plan", "versions", "mnnpy", to="0.0.1"), "made by mnnpy 0.0.1"),
    "unknown key": (at("plan", "more", to=1), "unknown key 'more'"),
    "missing key": (lambda data: data["plan"].pop("memory"), "'memory' is missing"),
    "no steps": (at("plan", "steps", to={}), "expected an array"),
    "operator": (at(*STEP, "node", "op", "kind", to="Rely"), "no operator 'Rely'"),
    "attribute": (
        at(*STEP, "node", "op", "attributes", "graph", "nodes", 1, "op", "attributes", to={"x": 1}),
        "unknown key 'x'",
    ),
    "region": (
        at(*STEP, "node", "op", "attributes", "graph", "nodes", 0, "inputs", 0, to="q"),
        "reads 'q'",
    ),
    "constant": (
        at(*STEP, "node", "op", "attributes", "graph", "constants", "c", "content", to="????"),
        "constants.c",
    ),
    "constant's shape": (
        at(*STEP, "node", "op", "attributes", "graph", "constants", "c", "shape", to=[7]),
        "6 elements",
    ),
    "constant's type": (
        at(*STEP, "node", "op", "attributes", "graph", "constants", "c", "dtype", to="string"),
        "content of a kind",
    ),
    "config": (at(*STEP, "choice", "config", to=[["split", 1.5]]), "expected int or str"),
    "cost": (at(*STEP, "choice", "cost", "seconds", to="fast"), "expected float"),
    "layouts": (at(*STEP, "choice", "input_layouts", to=[]), "0 layouts for 2 inputs"),
    "alias": (at(*STEP, "aliases", to=[[0, 9]]), "out of range"),
    "workspaces": (at("plan", "memory", "workspaces", to=[]), "0 workspaces, 2 steps"),
    "slots": (lambda data: data["plan"]["memory"]["slots"].pop("x"), "not of the same values"),
    "slot": (at("plan", "memory", "slots", "y", "offset", to=200), "128 bytes at 200"),
    "negative slot": (at("plan", "memory", "slots", "y", "nbytes", to=-1), "-1 bytes"),
    "arena": (at("plan", "memory", "arenas", to={"host": 256}), "an arena of 0 bytes"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_plans_are_refused(case: str, path: Path) -> None:
    change, message = MALFORMED[case]
    data = plan_to_json(rich_plan())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=message):
        load_plan(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"\x80\x04."])
def test_what_is_no_plan_is_refused(text: bytes, path: Path) -> None:
    path.write_bytes(text)
    with pytest.raises(PlanError, match="is no valid plan"):
        load_plan(path)


def test_every_truncation_is_refused(path: Path) -> None:
    save_plan(rich_plan(), path)
    content = path.read_bytes().rstrip()
    for length in np.linspace(0, len(content) - 1, 60, dtype=int):
        path.write_bytes(content[:length])
        with pytest.raises(PlanError):
            load_plan(path)


@pytest.mark.parametrize("name", ["missing", "", "a\0b"])
def test_what_cannot_be_read_is_a_plan_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read"):
        load_plan(str(tmp_path / name))


def test_what_cannot_be_written_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot write"):
        save_plan(rich_plan(), tmp_path / "none" / "plan.json")


def test_another_models_plan_is_refused(digits: Graph) -> None:
    with pytest.raises(PlanError, match="was made for the model 0123"):
        Session(digits, backend="numpy", plan=rich_plan())
