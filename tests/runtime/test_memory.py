"""Memory plans, proved by the independent checker; and the checker, proved by planted errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.activation import Clip, Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Identity
from mnnpy.runtime.ops.shaping import Reshape, Transpose
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.check_memory import check_memory
from mnnpy.runtime.preinference.memory import ALIGNMENT
from mnnpy.runtime.preinference.plan import Plan, Slot
from mnnpy.runtime.preinference.planner import Planned, make_plan
from mnnpy.runtime.registry import with_fallbacks
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds, random_graph

BACKENDS = with_fallbacks("numpy")


def planned(graph: Graph) -> Planned:
    return make_plan(graph, {n: Value(t) for n, t in graph.inputs.items()}, BACKENDS)


def problems(made: Planned, plan: Plan | None = None) -> tuple[str, ...]:
    return check_memory(plan or made.plan, made.values, BACKENDS)


def needed_nbytes(plan: Plan) -> int:
    """Most bytes that are truly live at one step: written before or there, read there or later."""
    count = len(plan.steps)
    first = dict.fromkeys(plan.inputs, 0)
    last = dict.fromkeys(plan.outputs.values(), count)
    for index, step in enumerate(plan.steps):
        for name in step.node.outputs:
            first[name] = index
            last.setdefault(name, index)
        for name in step.node.reads:
            last[name] = max(last.get(name, 0), index)
    most = 0
    for index in range(count + 1):
        alive = [s for n, s in plan.memory.slots.items() if first[n] <= index <= last.get(n, -1)]
        spans = sorted((s.offset, s.offset + s.nbytes) for s in alive)
        total, end = 0, 0
        for low, high in spans:
            total += max(0, high - max(low, end))
            end = max(end, high)
        workspace = plan.memory.workspaces[index] if index < count else None
        most = max(most, total + (workspace.nbytes if workspace else 0))
    return most


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_a_thousand_random_graphs(start: int) -> None:
    for seed in range(start, start + 100):
        graph = random_graph(seed)
        made = planned(graph)
        assert not problems(made), f"seed {seed}"
        feeds = random_feeds(graph, seed)
        assert_close(Session(graph, backend="numpy").run(feeds), evaluate(graph, np, feeds))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_a_thousand_larger_random_graphs(start: int) -> None:
    for seed in range(start, start + 100):
        graph = random_graph(seed, size=60)
        assert not problems(planned(graph)), f"seed {seed}"


NETWORKS = ("mobilenet_v1", "mobilenet_v2", "squeezenet1_1", "resnet18", "resnet50", "vgg16")
NETWORKS += ("inception_v3", "bert_encoder")


@pytest.mark.parametrize("name", NETWORKS)
def test_benchmark_networks(name: str) -> None:
    """The peak is at most 1.1 times what is live at one step, and nothing is overwritten."""
    from benchmarks.models import build
    from mnnpy.converter.onnx_reader import read_graph

    made = planned(read_graph(build(name)))
    assert not problems(made)
    for memory, nbytes in made.plan.memory.arenas.items():
        assert nbytes <= 1.1 * made.plan.memory.lower_bound[memory]
    assert needed_nbytes(made.plan) <= sum(made.plan.memory.lower_bound.values())


def chain() -> Graph:
    """Conv, activations in place, a view, a concatenation written in place, a value read twice."""
    b = GraphBuilder()
    x = b.input((1, 4, 8, 8))
    weights = b.constant(np.ones((4, 4, 3, 3), np.float32) / 36)
    left = b.node(Relu(), b.node(Conv(pads=(1, 1, 1, 1)), x, weights))
    right = b.node(Transpose((0, 1, 3, 2)), left)
    both = b.node(Concat(1), left, right)
    flat = b.node(Reshape(), both, b.constant(np.array([8, 64])))
    return b.graph(b.node(Add(), flat, b.node(Transpose((1, 0)), b.node(Transpose((1, 0)), flat))))


def moved(plan: Plan, name: str, by: int) -> Plan:
    slots = dict(plan.memory.slots)
    slots[name] = replace(slots[name], offset=slots[name].offset + by)
    arenas = {memory: nbytes + 2 * abs(by) for memory, nbytes in plan.memory.arenas.items()}
    return replace(plan, memory=replace(plan.memory, slots=slots, arenas=arenas))


def overlaid(plan: Plan, name: str, other: str) -> Plan:
    slots: dict[str, Slot] = dict(plan.memory.slots)
    slots[name] = replace(slots[name], offset=slots[other].offset)
    return replace(plan, memory=replace(plan.memory, slots=slots))


def test_the_checker_accepts_the_plan_that_errors_are_planted_in() -> None:
    made = planned(chain())
    assert not problems(made)
    kinds = [step.node.op.kind for step in made.plan.steps]
    assert any(step.aliases for step in made.plan.steps)
    assert "Concat" in kinds


def planted_errors() -> Mapping[str, Plan]:
    """A correct plan with one thing wrong in each."""
    plan = planned(chain()).plan
    memory, steps = plan.memory, plan.steps
    errors = {
        f"{step.node.outputs[0]} over its input {name}": overlaid(
            plan, str(step.node.outputs[0]), name
        )
        for step in steps
        for name in step.node.reads
        if step.choice.scheme == "reference" and name in memory.slots
    }
    errors |= {
        f"{name} shifted": moved(plan, name, ALIGNMENT)
        for step in steps
        if step.aliases
        for name in step.node.outputs
    }
    where = next(i for i, w in enumerate(memory.workspaces) if w is not None)
    workspace = memory.workspaces[where]
    assert workspace is not None
    for name in (*steps[where].node.reads, *steps[where].node.outputs):
        if name in memory.slots:
            places = list(memory.workspaces)
            places[where] = replace(workspace, offset=memory.slots[name].offset)
            errors[f"workspace over {name}"] = replace(
                plan,
                memory=replace(
                    memory,
                    workspaces=tuple(places),
                    arenas={m: 4 * nbytes for m, nbytes in memory.arenas.items()},
                ),
            )
    (output,) = plan.outputs
    errors["steps in the wrong order"] = replace(plan, steps=steps[::-1])
    errors["alias invented"] = replace(
        plan,
        steps=tuple(
            replace(s, aliases=((0, 0),)) if s.node.op.kind == "Transpose" else s for s in steps
        ),
    )
    errors["too small"] = replace(
        plan,
        memory=replace(
            memory, slots={**memory.slots, output: replace(memory.slots[output], nbytes=4)}
        ),
    )
    errors["outside"] = replace(
        plan, memory=replace(memory, arenas=dict.fromkeys(memory.arenas, 64))
    )
    errors["misaligned"] = moved(plan, output, 2)
    return errors


@pytest.mark.parametrize("error", planted_errors())
def test_the_checker_finds(error: str) -> None:
    made = planned(chain())
    assert problems(made, planted_errors()[error])


def test_the_checker_finds_outputs_that_do_not_survive() -> None:
    b = GraphBuilder()
    x = b.input((4, 6))
    kept = b.node(Transpose((1, 0)), x)
    later = b.node(Transpose((1, 0)), kept)
    made = planned(b.graph(kept, later))
    third = b.node(Transpose((1, 0)), later)
    longer = planned(b.graph(kept, third))
    assert not problems(made)
    wrong = overlaid(longer.plan, third, kept)
    assert any(f"graph output {kept!r}" in problem for problem in problems(longer, wrong))


@pytest.mark.parametrize("seed", range(40))
def test_the_checker_finds_values_laid_over_live_ones(seed: int) -> None:
    """Every value written while another one waits to be read, laid over that one."""
    made = planned(random_graph(seed))
    steps, slots = made.plan.steps, made.plan.memory.slots
    written = {name: i for i, step in enumerate(steps) for name in step.node.outputs}
    read = {name: i for i, step in enumerate(steps) for name in step.node.reads}
    read |= dict.fromkeys(made.plan.outputs.values(), len(steps))
    pairs = [
        (early, late)
        for late, at in written.items()
        for early in slots
        if written.get(early, -1) < at < read.get(early, -1)
        if slots[early].nbytes and slots[late].nbytes and not steps[at].aliases
        if not overlap(slots[early], slots[late])
    ]
    for early, late in pairs[::5]:
        wrong = overlaid(made.plan, late, early)
        larger = {memory: 2 * nbytes for memory, nbytes in wrong.memory.arenas.items()}
        assert problems(made, replace(wrong, memory=replace(wrong.memory, arenas=larger)))


def overlap(a: Slot, b: Slot) -> bool:
    return a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes


def sharing(build: str) -> tuple[Graph, set[tuple[str, str]]]:
    """A graph, and the pairs of values that must share their first byte."""
    b = GraphBuilder()
    x = b.input((1, 16, 8))
    if build == "in place":
        v = b.node(Sigmoid(), x)
        w = b.node(Relu(), v)
        return b.graph(w), {(v, w), (x, v)}
    if build == "in place on the second input":
        kept = b.node(Transpose((0, 2, 1)), x)
        dying = b.node(Sigmoid(), kept)
        w = b.node(Add(), kept, dying)
        return b.graph(w, kept), {(dying, w)}
    if build == "view":
        v = b.node(Reshape(), x, b.constant(np.array([16, 8])))
        w = b.node(Identity(), v)
        return b.graph(w), {(x, v), (v, w)}
    v = b.node(Transpose((0, 2, 1)), x)
    w = b.node(Transpose((0, 2, 1)), v)
    y = b.node(Concat(1), w, x)
    return b.graph(y), {(w, y)}


@pytest.mark.parametrize("build", ["in place", "in place on the second input", "view", "concat"])
def test_values_share_memory(build: str) -> None:
    graph, pairs = sharing(build)
    slots = planned(graph).plan.memory.slots
    for first, second in pairs:
        assert slots[first].offset == slots[second].offset


def test_bounds_of_clip_are_not_overwritten() -> None:
    """The maximum is read after the minimum has been applied, so that it cannot be the output."""
    b = GraphBuilder()
    x, low = b.input(()), b.input(())
    high = b.node(Add(), low, low)
    graph = b.graph(b.node(Clip(), x, low, high), x, low)
    feeds = {"x0": np.float32(9), "x1": np.float32(2)}
    assert_close(Session(graph, backend="numpy").run(feeds), evaluate(graph, np, feeds))


def test_small_pieces_with_larger_views_stay_apart() -> None:
    """A piece whose block holds more than the piece is copied: both round up to one alignment."""
    b = GraphBuilder()
    x = b.input((1, 3))
    v = b.node(Relu(), x)
    y = b.node(Concat(1), b.node(Concat(1), v, x), v)
    graph = b.graph(b.node(Add(), y, y), v)
    made = planned(graph)
    assert not problems(made)
    feeds = random_feeds(graph)
    assert_close(Session(graph, backend="numpy").run(feeds), evaluate(graph, np, feeds))
