"""Parts of a batch that join: where they can, when they do, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.errors import ExecutionError, ModelFormatError, PlanError
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import INT64, Value
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Mul
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import Gemm
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.shaping import Flatten
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.parted import JoinedExecutable, bind_plan
from mnnpy.runtime.plan_file import load_plan, plan_from_json, plan_to_json, save_plan
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.joins import find_joins
from mnnpy.runtime.registry import with_fallbacks
from mnnpy.runtime.search import search
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds
from tests.runtime.planning import check_runs, planned

BATCH = 6
JOIN = "v5"
ONE_PART: Any = {"count": 1, "lanes": 1, "weighed": [], "reason": None}
WHOLE_OF_NONE = ONE_PART | {"lanes": 0}


def network(batch: int = BATCH, size: int = 8, width: int = 40, last: Any = None) -> Graph:
    """Convolutions with a residual, flattened to ``JOIN``, and two products with large matrices."""
    rng = np.random.default_rng(0)
    b = GraphBuilder()

    def weights(*shape: int) -> str:
        scale = np.sqrt(np.prod(shape[1:]))
        return b.constant((rng.standard_normal(shape) / scale).astype(np.float32))

    x = b.node(
        Relu(), b.node(Conv(pads=(1,) * 4), b.input((batch, 3, size, size)), weights(16, 3, 3, 3))
    )
    y = b.node(Conv(pads=(1,) * 4), x, weights(16, 16, 3, 3))
    x = b.node(Flatten(), b.node(Relu(), b.node(Add(), x, y)))
    assert x == JOIN
    x = b.node(Relu(), b.node(Gemm(transB=1), x, weights(width, 16 * size * size)))
    return b.graph(b.node(last or Relu(), b.node(Gemm(transB=1), x, weights(width, width))))


def joins(graph: Graph) -> list[str]:
    return [join.value for join in find_joins(graph, infer_values(graph))]


def test_joins_are_where_one_value_is_left() -> None:
    graph = network()
    assert joins(graph) == ["v0", "v1", "v3", "v4", "v5", "v6", "v7", "v8"]


def test_inputs_outputs_and_skips_count_as_read() -> None:
    b = GraphBuilder()
    x, y = b.input((2, 3)), b.input((2, 3))
    both = b.node(Add(), b.node(Relu(), x), y)
    last = b.node(Mul(), b.node(Relu(), both), both)
    assert joins(b.graph(last)) == [both]
    assert joins(b.graph(last, both)) == []


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_joined_parts_give_what_the_whole_gives(backend: str, threads: int, parts: int) -> None:
    graph = network()
    made = planned(graph, backend, parts=parts, join=JOIN, threads=threads)
    assert (made.plan.parts.count, made.plan.join) == (parts, JOIN)
    assert made.plan.inputs == graph.inputs
    assert made.plan.fingerprint == graph.fingerprint
    bound = bind_plan(made, with_fallbacks(backend), PackedWeights(), threads)
    assert isinstance(bound, JoinedExecutable)
    check_runs(bound, graph)


def test_late_weights_make_parts_join() -> None:
    """Large pictures do best in small parts, a large matrix is best read once."""
    made = planned(network(16, 96, 64)).plan
    assert made.join is not None
    assert made.parts.count in (4, 16)
    assert made.seconds < min(seconds for _, seconds in made.parts.weighed)
    assert made.seconds == pytest.approx(sum(stage_seconds(stage) for stage in made.stages))
    assert planned(network(8, 8)).plan.join is None


def stage_seconds(stage: Any) -> float:
    return float(stage.parts.rounds * sum(step.choice.cost.seconds for step in stage.steps))


def test_graphs_that_cost_nothing() -> None:
    b = GraphBuilder()
    graph = b.graph(b.node(Flatten(), b.node(Flatten(), b.input((4, 2, 3)))))
    assert planned(graph).plan.join is None


def test_outputs_that_are_known_while_planning() -> None:
    b = GraphBuilder()
    x = b.input((BATCH, 4))
    y = b.node(Relu(), b.node(Relu(), x))
    known = b.constant(np.ones(3, np.float32))
    graph = b.graph(y, known)
    assert joins(graph) == []
    found = Session(graph, "numba", threads=1).run(random_feeds(graph))
    assert (found[known] == 1).all()


def test_other_outputs_of_a_session_with_a_join(tmp_path: Path) -> None:
    graph = network()
    session = Session(graph, "numba", threads=1, plan=planned(graph, parts=3, join=JOIN).plan)
    feeds = random_feeds(graph)
    wanted = evaluate(replace(graph, outputs=("v1", "v7")), np, feeds)
    assert_close(session.run(feeds, outputs=["v1", "v7"]), wanted)


def test_a_join_needs_parts() -> None:
    with pytest.raises(PlanError, match="do not say how many parts"):
        planned(network(), join=JOIN)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"then": {"inputs": {}}}, "plan.then: reads"),
        ({"then": {"parts": WHOLE_OF_NONE}}, "plan.then.parts: 0 lanes for 1 parts"),
        ({"parts": WHOLE_OF_NONE}, "plan.parts: 0 lanes for 1 parts"),
        ({"parts": ONE_PART}, "is for a whole batch behind its parts"),
    ],
    ids=str,
)
def test_files_of_joined_plans_that_are_no_plans(change: dict[str, Any], reason: str) -> None:
    data: Any = plan_to_json(planned(network(), parts=3, join=JOIN).plan)
    plan = data["plan"]
    plan |= {key: entry for key, entry in change.items() if key != "then"}
    plan["then"] |= change.get("then", {})
    with pytest.raises(ModelFormatError, match=reason):
        plan_from_json(data)


@pytest.mark.parametrize(
    ("join", "parts", "reason"),
    [
        ("v2", 3, "parts cannot join at 'v2': what follows reads more than that"),
        ("nothing", 3, "parts cannot join at 'nothing'"),
        (JOIN, 4, "6 samples are not 4 equal parts"),
    ],
)
def test_joins_that_cannot_be_had(join: str, parts: int, reason: str) -> None:
    with pytest.raises(PlanError, match=f"cannot run in {parts} parts: {reason}"):
        planned(network(), parts=parts, join=join)


def test_what_mixes_samples_may_stand_behind_a_join() -> None:
    graph = network(last=Softmax(axis=0))
    with pytest.raises(PlanError, match="may mix samples"):
        planned(graph, parts=3)
    session = Session(graph, "numba", threads=1, constraints=Constraints(parts=3, join=JOIN))
    feeds = random_feeds(graph)
    assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_both_stages_share_the_error_budget() -> None:
    whole = planned(network(8, 24), parts=1, error_budget=1e-7).plan
    made = planned(network(8, 24), parts=8, join=JOIN, error_budget=1e-7).plan
    for plan in (whole, made):
        errors = [step.choice.cost.max_error for stage in plan.stages for step in stage.steps]
        assert sum(errors) <= 1e-7


def test_plans_explain_where_parts_join() -> None:
    made = planned(network(), parts=3, join=JOIN).plan
    text = made.explain()
    assert "the batch runs in 3 parts" in text
    assert f"the parts join at {JOIN}: from there on the whole batch runs" in text
    last = made.stages[-1].steps[-1]
    count = sum(len(stage.steps) for stage in made.stages)
    assert f"step {count - 1}: " in made.explain(count - 1)
    assert made.explain(count - 1) == made.explain(last.node.name)
    with pytest.raises(PlanError, match=f"has steps 0 to {count - 1}, not {count}"):
        made.explain(count)


def test_joined_plans_are_saved_and_given(tmp_path: Path) -> None:
    graph, path = network(), tmp_path / "joined.plan.json"
    made = planned(graph, parts=3, join=JOIN).plan
    save_plan(made, path)
    assert load_plan(path) == made
    session = Session(graph, "numba", threads=1, plan=path)
    assert session.plan() == made
    feeds = random_feeds(graph)
    assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_callbacks_profiles_and_progress() -> None:
    graph = network()
    constraints = Constraints(parts=3, join=JOIN)
    session, told = Session(graph, "numba", threads=1, constraints=constraints), []
    session.prepare(progress=lambda fraction, _: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] < 1
    feeds, plan = random_feeds(graph), session.plan()
    assert_close(session.run_with_callbacks(feeds), session.run(feeds))
    profile = session.profile(feeds, repeats=2)
    assert [e.step for e in profile.steps] == [step for s in plan.stages for step in s.steps]
    assert profile.predicted == pytest.approx(plan.seconds)
    assert "steps of one part of 3, and of the whole behind it:" in profile.table()


def test_a_search_keeps_the_join() -> None:
    graph = network()
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    given = (graph, inputs, with_fallbacks("numba"), Constraints(parts=2, join=JOIN))
    found = search(*given, threads=1, budget=0.2, repeats=1)
    assert [made.plan.join for made in (found.default, found.searched)] == [JOIN, JOIN]
    assert {name for layer in found.layers for name in layer.nodes} >= {"Gemm_6", "Gemm_8"}


def test_a_step_that_fails_behind_the_join_is_named() -> None:
    b = GraphBuilder()
    places = b.input((BATCH, 2), INT64)
    there = b.node(Relu(), places)
    table = b.constant(np.eye(5, dtype=np.float32))
    graph = b.graph(b.node(Relu(), b.node(Gather(), table, there)))
    session = Session(graph, "numpy", threads=1, constraints=Constraints(parts=3, join=there))
    with pytest.raises(ExecutionError, match="Gather node 'Gather_1' failed on numpy"):
        session.run(np.full((BATCH, 2), 7))
    (found,) = session.run(np.ones((BATCH, 2), np.int64)).values()
    assert (found == np.eye(5, dtype=np.float32)[1]).all()
