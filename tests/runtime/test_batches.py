"""Batches in parts: planned by cost, run with the same results, explained, saved and given."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnnpy.backends.numpy_cpu.backend import NumpyBackend
from mnnpy.runtime.devices import Coefficients, Device, Work
from mnnpy.runtime.errors import ExecutionError, PlanError
from mnnpy.runtime.execution import Executable
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import INT64, Value
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import Gemm
from mnnpy.runtime.ops.pooling import GlobalAveragePool
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.shaping import Flatten
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.parted import PartedExecutable, bind_plan
from mnnpy.runtime.plan_file import load_plan, save_plan
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import WHOLE
from mnnpy.runtime.preinference.planner import Planned
from mnnpy.runtime.registry import with_fallbacks
from mnnpy.runtime.search import search
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds
from tests.runtime.planning import check_runs, planned

BATCH = 6
BACKENDS = ["numpy", "numba"]


def network(batch: int = BATCH, size: int = 12, last: Any = None) -> Graph:
    """Two convolutions, a sum with another input, a pool; two outputs."""
    rng = np.random.default_rng(0)
    b = GraphBuilder()
    x, side = b.input((batch, 3, size, size)), b.input((batch, 8, 1, 1))
    for channels in (3, 8):
        weights = b.constant(rng.standard_normal((8, channels, 3, 3)).astype(np.float32))
        x = b.node(Relu(), b.node(Conv(pads=(1, 1, 1, 1)), x, weights))
    x = b.node(Add(), x, side)
    return b.graph(x, b.node(last or Flatten(), b.node(GlobalAveragePool(), x)))


def with_lanes(made: Planned, lanes: int) -> Planned:
    return replace(made, plan=replace(made.plan, parts=replace(made.plan.parts, lanes=lanes)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_parts_give_what_the_whole_gives(backend: str, parts: int, lanes: int) -> None:
    graph = network()
    made = planned(graph, backend, parts=parts)
    assert made.plan.parts.count == parts
    assert made.plan.inputs == graph.inputs
    made = with_lanes(made, min(lanes, parts))
    bound = bind_plan(made, with_fallbacks(backend), PackedWeights(), 2)
    check_runs(bound, graph)


def test_ways_are_weighed_by_cost() -> None:
    """Tensors that leave the caches cost more: parts are chosen, else the whole."""
    large = planned(network(32, 96)).plan
    assert large.parts.count in (8, 32)
    assert [count for count, _ in large.parts.weighed] == [1, 8, 32]
    for made in (large, planned(network(2, 4)).plan):
        assert made.seconds == min(seconds for _, seconds in made.parts.weighed)
    assert planned(network(2, 4)).plan.parts.count == 1


def test_the_device_decides_whether_parts_are_weighed() -> None:
    assert planned(network(32, 96), "numpy").plan.parts == WHOLE
    assert planned(network(1)).plan.parts.weighed == ()


def test_a_batch_that_mixes_stays_whole_and_says_why() -> None:
    graph = network(last=Softmax(axis=0))
    made = planned(graph).plan
    assert made.parts.count == 1
    assert "Softmax_6" in str(made.parts.reason)
    assert "cannot run in parts: Softmax node 'Softmax_6' may mix samples" in made.explain()
    with pytest.raises(PlanError, match="cannot run in 3 parts: Softmax node"):
        planned(graph, parts=3)
    with pytest.raises(PlanError, match="6 samples are not 4 equal parts"):
        planned(graph, parts=4)


def test_plans_explain_how_a_batch_runs() -> None:
    text = planned(network(32, 96), parts=8).plan.explain()
    assert "the batch runs in 8 parts; steps and memory are one part's" in text
    text = planned(network(32, 96)).plan.explain()
    assert "the batch as a whole would take" in text
    made = with_lanes(planned(network(), parts=3), 2).plan
    assert "in 3 parts, 2 side by side with an arena each" in made.explain()


def test_parts_are_saved_and_given(tmp_path: Path) -> None:
    graph, path = network(), tmp_path / "parts.plan.json"
    made = planned(graph, parts=3).plan
    save_plan(made, path)
    loaded = load_plan(path)
    assert loaded == made
    assert loaded.seconds == made.seconds
    session = Session(graph, "numba", threads=1, plan=path)
    assert session.plan().parts.count == 3
    assert session.plan() == made
    feeds = random_feeds(graph)
    assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_a_plan_of_the_whole_stays_whole() -> None:
    graph = network(32, 96)
    made = planned(graph, parts=1).plan
    assert Session(graph, "numba", threads=1, plan=made).plan().parts.count == 1


def session_in_parts(graph: Graph, parts: int = 3, backend: str = "numba") -> Session:
    return Session(graph, backend, threads=2, constraints=Constraints(parts=parts))


def test_callbacks_see_the_whole_batch() -> None:
    graph = network()
    session = session_in_parts(graph)
    shapes: list[tuple[int, ...]] = []

    def after(step: Any, arrays: dict[str, Any]) -> None:
        shapes.extend(array.shape for array in arrays.values())

    feeds = random_feeds(graph)
    found = session.run_with_callbacks(feeds, after=after)
    assert shapes
    assert {shape[0] for shape in shapes} == {BATCH}
    assert_close(session.run(feeds), found)


def test_a_given_plan_of_a_part_does_not_bind_the_whole() -> None:
    """A product of one row is pinned to a configuration that products of more rows do not have."""
    b = GraphBuilder()
    x, weights = b.input((BATCH, 64)), b.constant(np.ones((64, 48), np.float32))
    graph = b.graph(b.node(Relu(), b.node(Gemm(), x, weights)))
    made = planned(graph, parts=BATCH).plan
    session = Session(graph, "numba", threads=1, plan=made)
    feeds = random_feeds(graph)
    assert_close(session.run_with_callbacks(feeds), session.run(feeds))


def test_what_ends_a_lane_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No output is given out that one of the lanes has left unwritten."""
    bound = bind_plan(
        with_lanes(planned(network(), parts=6), 2), with_fallbacks("numba"), PackedWeights(), 1
    )
    assert isinstance(bound, PartedExecutable)
    leader, ended, execute = bound.first, threading.Event(), Executable.execute

    def fake(lane: Executable, feeds: Any, outputs: Any) -> None:
        if lane is leader:
            assert ended.wait(10)
            execute(lane, feeds, outputs)
            return
        ended.set()
        raise SystemExit("leaves")

    monkeypatch.setattr(Executable, "execute", fake)
    with pytest.raises(SystemExit, match="leaves"):
        bound.run(random_feeds(network()))


def test_progress_runs_through_all_lanes() -> None:
    told: list[float] = []
    made = with_lanes(planned(network(), parts=6), 3)
    bind_plan(
        made, with_fallbacks("numba"), PackedWeights(), 1, lambda fraction, _: told.append(fraction)
    )
    assert len(told) == 3 * len(made.plan.steps)
    assert told == sorted(told)
    assert told[-1] < 1


def test_profiles_show_the_steps_of_one_part() -> None:
    graph = network()
    session = session_in_parts(graph)
    profile = session.profile(random_feeds(graph), repeats=2)
    plan = session.plan()
    assert [entry.step for entry in profile.steps] == list(plan.steps)
    assert profile.predicted == pytest.approx(plan.seconds)
    assert "steps of one part of 3:" in profile.table()


def lookup(backend: str) -> Session:
    b = GraphBuilder()
    table, places = b.constant(np.eye(5, dtype=np.float32)), b.input((BATCH, 2), INT64)
    return session_in_parts(b.graph(b.node(Relu(), b.node(Gather(), table, places))), 6, backend)


def test_a_failing_part_names_its_step() -> None:
    session = lookup("numpy")
    places = np.zeros((BATCH, 2), np.int64)
    places[4, 1] = 7
    for _ in range(3):
        with pytest.raises(ExecutionError, match="Gather node 'Gather_0' failed on numpy"):
            session.run(places)
    (found,) = session.run(np.ones((BATCH, 2), np.int64)).values()
    assert (found == np.eye(5, dtype=np.float32)[1]).all()


def test_concurrent_runs_of_one_session() -> None:
    graph = network()
    session = session_in_parts(graph, 6)
    feeds = [random_feeds(graph, seed) for seed in range(3)]
    expected = [session.run(fed) for fed in feeds]
    wrong: list[int] = []

    def call(index: int) -> None:
        for _ in range(20):
            found = session.run(feeds[index])
            if any((found[name] != array).any() for name, array in expected[index].items()):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(index,)) for index in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_lanes_share_packed_weights() -> None:
    packed = PackedWeights()
    made = planned(network(), parts=6)
    one = bind_plan(with_lanes(made, 1), with_fallbacks("numba"), packed, 1)
    held = packed.nbytes
    three = bind_plan(with_lanes(made, 3), with_fallbacks("numba"), packed, 1)
    assert held > 0
    assert packed.nbytes == held
    assert isinstance(one, PartedExecutable)
    assert isinstance(three, PartedExecutable)


def test_a_search_keeps_the_parts() -> None:
    graph = network()
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    found = search(
        graph,
        inputs,
        with_fallbacks("numba"),
        Constraints(parts=2),
        threads=1,
        budget=0.2,
        repeats=1,
    )
    assert [made.plan.parts.count for made in (found.default, found.searched)] == [2, 2]


DEVICE = Device(
    kind="cpu",
    name="test",
    memory="host",
    threads=4,
    cache_nbytes=1000,
    efficiency=0.5,
    seconds_per_wait=0.25,
    coefficients={"*": Coefficients(1.0, 1.0, 1.0), "far": Coefficients(0.0, 0.125, 0.0)},
)


@pytest.mark.parametrize(
    ("device", "work", "handed", "seconds"),
    [
        (DEVICE.limited(1), Work(10, 20, 2), 1000, 32.0),
        (DEVICE.limited(1), Work(10, 20, 2), 1800, 132.0),
        (DEVICE.limited(1, lanes=2), Work(10, 20, 2), 1300, 132.0),
        (DEVICE.limited(3), Work(10, 20, 2), 0, 16.25),
        (DEVICE.limited(None), Work(10, 20, 0), 0, 12.0),
        (DEVICE.limited(9), Work(0, 0, 0), 0, 0.0),
        (replace(DEVICE, efficiency=0.0), Work(10, 20, 2), 0, 32.0),
        (replace(DEVICE, cache_nbytes=None).limited(1), Work(1, 0, 0), 10**9, 1.0),
    ],
)
def test_predictions_know_threads_and_caches(
    device: Device, work: Work, handed: int, seconds: float
) -> None:
    assert device.seconds("any", work, handed) == pytest.approx(seconds)


@pytest.mark.parametrize(("count", "lanes", "rounds"), [(1, 1, 1), (6, 2, 3), (3, 2, 2), (8, 3, 3)])
def test_a_batch_takes_as_many_rounds_as_its_lanes_need(
    count: int, lanes: int, rounds: int
) -> None:
    made = with_lanes(planned(network(24, 4), parts=count), lanes).plan
    seconds = sum(step.choice.cost.seconds for step in made.steps)
    assert made.seconds == pytest.approx(rounds * seconds)


def test_parts_outside_of_host_memory_run_one_by_one() -> None:
    class Elsewhere(NumpyBackend):
        def describe(self) -> Device:
            return replace(super().describe(), threads=4, memory="elsewhere")

    graph = network()
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    backends = [Elsewhere(), NumpyBackend()]
    assert plan_batch(graph, inputs, backends, Constraints(parts=6)).plan.parts.lanes == 1


def test_every_thread_is_a_lane_as_far_as_there_are_parts() -> None:
    class Four(NumpyBackend):
        def describe(self) -> Device:
            return replace(super().describe(), threads=4)

    graph = network()
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    lanes = [
        plan_batch(graph, inputs, [Four()], Constraints(parts=parts), threads).plan.parts.lanes
        for parts, threads in [(2, None), (6, None), (6, 3), (6, 9), (1, 4)]
    ]
    assert lanes == [2, 4, 3, 4, 1]
