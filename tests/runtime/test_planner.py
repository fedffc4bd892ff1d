"""What planning decides: which steps remain, in which order, in which segments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.planning import chain_and_branch
from mnnpy.backends.numpy_cpu.backend import NumpyBackend
from mnnpy.runtime.contracts import Kernel
from mnnpy.runtime.devices import Coefficients, Device
from mnnpy.runtime.errors import PlanError, ShapeError
from mnnpy.runtime.execution import Executable
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, INT64, TensorType, Value
from mnnpy.runtime.ops.activation import Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Mul
from mnnpy.runtime.ops.generation import ConstantOfShape
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.selection import NonZero
from mnnpy.runtime.ops.shaping import Reshape, Shape, Transpose
from mnnpy.runtime.ops.slicing import Concat, Expand, Slice
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.preinference.check_memory import check_memory
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Plan
from mnnpy.runtime.preinference.planner import make_plan
from mnnpy.runtime.registry import with_fallbacks
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds, random_graph

BACKENDS = with_fallbacks("numpy")


def plan(graph: Graph, **options: Any) -> Plan:
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    return make_plan(graph, inputs, BACKENDS, Constraints(**options)).plan


def kinds(made: Plan) -> list[str]:
    return [step.node.op.kind for step in made.steps]


def test_constants_and_shape_arithmetic_vanish() -> None:
    b = GraphBuilder()
    x = b.input((2, 3, 4))
    size = b.node(Gather(), b.node(Shape(), x), b.constant(np.array([0])))
    shape = b.node(Concat(0), size, b.constant(np.array([-1])))
    scale = b.node(Mul(), b.constant(np.float32(2)), b.constant(np.float32(3)))
    graph = b.graph(b.node(Mul(), b.node(Reshape(), x, shape), scale))
    assert kinds(plan(graph)) == ["Reshape", "Mul"]


def test_known_outputs_need_no_step() -> None:
    b = GraphBuilder()
    x = b.input((2, 3))
    shape = b.node(Shape(), x)
    graph = b.graph(shape)
    assert kinds(plan(graph)) == []
    outputs = Session(graph, backend="numpy").run(np.zeros((2, 3), np.float32))
    assert outputs[shape].tolist() == [2, 3]


def test_dead_code_is_not_planned() -> None:
    b = GraphBuilder()
    x = b.input((2, 3))
    b.node(Transpose(), x)
    unread = b.input((4,))
    y = b.node(Relu(), x)
    made = plan(b.graph(y))
    assert kinds(made) == ["Relu"]
    assert unread not in made.memory.slots


def residual(size: int) -> Graph:
    """relu(conv(x) + side), where the side is computed after the convolution stands."""
    b = GraphBuilder()
    x = b.input((1, 8, size, size))
    weights, bias = (
        b.constant(np.ones((8, 8, 3, 3), np.float32)),
        b.constant(np.ones(8, np.float32)),
    )
    conv = b.node(Conv(pads=(1, 1, 1, 1)), x, weights, bias)
    side = b.node(Transpose((0, 1, 3, 2)), x)
    return b.graph(b.node(Relu(), b.node(Add(), conv, side)))


def test_a_region_waits_for_all_that_it_reads() -> None:
    graph = residual(64)
    made = plan(graph)
    assert kinds(made) == ["Transpose", "Conv+Add+Relu"]
    feeds = random_feeds(graph)
    assert_close(Session(graph, backend="numpy").run(feeds), evaluate(graph, np, feeds))


def test_regions_can_be_turned_off() -> None:
    assert kinds(plan(residual(64), fuse=False)) == ["Conv", "Transpose", "Add", "Relu"]


@pytest.mark.parametrize(
    ("options", "schemes"),
    [
        ({"pinned": {"Conv_0": ("numpy", "conv_im2col", None)}}, {"conv_im2col"}),
        ({"allowed": {"Conv": frozenset({"conv_sliding_window"})}}, {"conv_sliding_window"}),
        ({"allowed": {"Conv_*": frozenset({"conv_winograd"})}}, {"conv_winograd"}),
        ({"allowed": {"Add_2": frozenset({"conv_im2col"})}}, {"conv_im2col"}),
    ],
)
def test_constraints_on_schemes(options: dict[str, Any], schemes: set[str]) -> None:
    made = plan(residual(64), **options)
    convs = [step for step in made.steps if "Conv" in step.node.op.kind]
    assert {step.choice.scheme for step in convs} == schemes


def test_a_pin_within_a_region_keeps_the_node_out_of_it() -> None:
    made = plan(residual(64), pinned={"Relu_3": ("numpy", "elementwise", None)})
    assert kinds(made) == ["Transpose", "Conv+Add", "Relu"]


def test_patterns_are_names_first() -> None:
    b = GraphBuilder()
    b.node(Relu(), b.input((2, 3)))
    node = replace(b.nodes[0], name="block[0]")
    graph = replace(b.graph("v0"), nodes=(node,))
    (step,) = plan(graph, forbidden={"block[0]": frozenset({"elementwise"})}).steps
    assert step.choice.scheme == "reference"


class Distant(NumpyBackend):
    """Computes Relu, in a memory of its own."""

    name = "distant"

    def describe(self) -> Device:
        free = {"*": Coefficients(0, 0, 0)}
        return replace(BACKENDS[0].describe(), memory="distant", coefficients=free)

    def kernels(self, op: Op) -> Sequence[Kernel]:
        return super().kernels(op) if isinstance(op, Relu) else ()


def test_copies_have_names_of_their_own() -> None:
    nodes = (
        Node("a", Relu(), ("x@y",), ("x@y@distant",)),
        Node("b", Sigmoid(), ("x@y@distant",), ("z",)),
        Node("c", Add(), ("z", "x@y"), ("x",)),
    )
    graph = Graph(nodes, {"x@y": TensorType(FLOAT32, (2, 3))}, ("x",)).validate()
    backends = (Distant(), *BACKENDS)
    pinned = {"a": ("distant", "elementwise", None)}
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    planned = make_plan(graph, inputs, backends, Constraints(pinned=pinned))
    assert kinds(planned.plan) == ["mnnpy.Copy", "Relu", "mnnpy.Copy", "Sigmoid", "Add"]
    assert not check_memory(planned.plan, planned.values, backends)
    feeds = random_feeds(graph)
    found = Executable(planned, backends, PackedWeights(), None).run(feeds)
    assert_close(found, evaluate(graph, np, feeds))


def test_values_travel_plain_between_memories() -> None:
    """A backend of another memory between kernels that work on blocked layouts."""
    b = GraphBuilder()
    w = b.constant(np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32) / 12)
    x = b.node(Conv(pads=(1, 1, 1, 1)), b.input((1, 16, 8, 8)), w)
    graph = b.graph(b.node(Conv(pads=(1, 1, 1, 1)), b.node(Relu(), x), w))
    backends = (Distant(), *with_fallbacks("numba"))
    native = ("numba", "conv_direct", None)
    pinned = {"Conv_0": native, "Relu_1": ("distant", "elementwise", None), "Conv_2": native}
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    planned = make_plan(graph, inputs, backends, Constraints(pinned=pinned))
    copies = [step for step in planned.plan.steps if step.choice.scheme == "copy"]
    assert {step.choice.backend for step in copies} == {"distant", "numba"}
    assert not check_memory(planned.plan, planned.values, backends)
    feeds = random_feeds(graph)
    found = Executable(planned, backends, PackedWeights(), None).run(feeds)
    assert_close(found, evaluate(graph, np, feeds))


def test_a_pin_may_name_the_config() -> None:
    (conv,) = (s for s in plan(residual(64)).steps if "Conv" in s.node.op.kind)
    configs = [r.config for r in conv.choice.rejected if r.scheme == "conv_winograd"]
    assert len(configs) >= 2
    for config in configs:
        made = plan(residual(64), pinned={"Conv_0": ("numpy", "conv_winograd", config)})
        (chosen,) = (s for s in made.steps if "Conv" in s.node.op.kind)
        assert (chosen.choice.scheme, chosen.choice.config) == ("conv_winograd", config)
    with pytest.raises(PlanError, match=r"pinned to conv_winograd \(m=99\) on numpy"):
        plan(residual(64), pinned={"Conv_0": ("numpy", "conv_winograd", (("m", 99),))})


def test_limits_reject_with_their_reason() -> None:
    made = plan(residual(64), max_error=0.0, max_workspace_nbytes=1 << 16)
    (conv,) = (step for step in made.steps if "Conv" in step.node.op.kind)
    reasons = {r.scheme: r.reason or "" for r in conv.choice.rejected}
    assert "is above the limit 0.0e+00" in reasons["conv_winograd"]
    assert "is above the limit 65536 B" in reasons["conv_im2col"]


def test_no_candidate_lists_every_reason() -> None:
    with pytest.raises(PlanError) as caught:
        plan(residual(64), pinned={"Conv_0": ("numpy", "conv_nonsense", None)})
    assert "nothing can run" in str(caught.value)
    assert "pinned to conv_nonsense on numpy" in str(caught.value)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    b = GraphBuilder()
    graph = b.graph(b.node(MatMul(), b.input((2, 3)), b.input((4, 5))))
    with pytest.raises(ShapeError, match="MatMul node 'MatMul_0'"):
        plan(graph)


FINGERPRINT = """
import hashlib
from tests.runtime.graphs import random_graph
from tests.runtime.test_planner import describe, plan, residual
graphs = [residual(64), *(random_graph(seed, 40) for seed in range(5))]
print(hashlib.sha256(repr([describe(plan(graph)) for graph in graphs]).encode()).hexdigest())
"""


def describe(made: Plan) -> object:
    """All that a plan decides, as text."""
    steps = [(s.node.name, s.node.inputs, s.choice.scheme, s.choice.config) for s in made.steps]
    aliases = [step.aliases for step in made.steps]
    return steps, aliases, sorted(made.memory.slots.items()), made.memory.workspaces, made.outputs


def test_two_processes_make_the_same_plan() -> None:
    root = Path(__file__).resolve().parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_equal_inputs_give_equal_plans() -> None:
    for seed in range(20):
        graph = random_graph(seed)
        assert plan(graph) == plan(graph)


def test_ten_thousand_nodes() -> None:
    """That it is planned at all; ``python -m benchmarks.planning`` prints how long it takes."""
    graph = chain_and_branch(10_000)
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    made = make_plan(graph, inputs, BACKENDS)
    assert sum(kind.count("+") + 1 for kind in kinds(made.plan)) == 10_000
    assert not check_memory(made.plan, made.values, BACKENDS)


def nonzero_rows() -> Graph:
    """Rows of x that a mask selects, times two, with a static branch beside it."""
    b = GraphBuilder()
    x, mask = b.input((4, 3)), b.input((4,), INT64)
    where = b.node(Reshape(), b.node(NonZero(), mask), b.constant(np.array([-1])))
    rows = b.node(Gather(0), x, where)
    double = b.node(Add(), rows, rows)
    return b.graph(b.node(Relu(), double), b.node(Relu(), x))


@pytest.mark.parametrize("mask", [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
def test_sizes_that_the_data_decide(mask: list[int]) -> None:
    graph = nonzero_rows()
    feeds = random_feeds(graph) | {"x1": np.array(mask)}
    session = Session(graph, backend="numpy")
    for _ in range(2):
        assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_a_segment_ends_where_only_the_data_decide() -> None:
    graph = nonzero_rows()
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    made = make_plan(graph, inputs, BACKENDS)
    assert not made.plan.complete
    assert made.rest is not None
    assert "NonZero" in kinds(made.plan)
    assert "Gather" in {node.op.kind for node in made.rest.nodes}
    assert set(made.rest.inputs) <= set(made.plan.outputs) | set(graph.inputs)


def test_dead_code_behind_a_segment() -> None:
    """What nobody reads behind a data-dependent size is not waited for."""
    b = GraphBuilder()
    x = b.input((4,))
    early = b.node(Relu(), x)
    where = b.node(NonZero(), x)
    b.node(Add(), b.node(Gather(0), early, where), b.node(Gather(0), x, where))
    y = b.node(Gather(0), x, where)
    b.node(Transpose(), b.node(Relu(), early))
    graph = b.graph(y)
    feeds = {"x0": np.array([0, 1, 0, 2], np.float32)}
    assert_close(Session(graph, backend="numpy").run(feeds), evaluate(graph, np, feeds))


def test_constants_behind_a_segment_follow_the_shapes() -> None:
    """What the first segment knew of its shapes belongs to its own second segment only."""
    n = SymbolicDim.named("n")
    b = GraphBuilder()
    x, mask = b.input((n, 2)), b.input((3,))
    size = b.node(Gather(), b.node(Shape(), x), b.constant(np.array([0])))
    where = b.node(Reshape(), b.node(NonZero(), mask), b.constant(np.array([-1, 1])))
    y = b.node(Expand(), where, b.node(Concat(0), b.constant(np.array([1])), size))
    graph = b.graph(y)
    session = Session(graph, backend="numpy")
    for count in (2, 5, 2):
        feeds = {"x0": np.zeros((count, 2), np.float32), "x1": np.array([0, 1, 1], np.float32)}
        assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_constants_follow_the_shapes_from_plan_to_plan() -> None:
    """Evaluated shape arithmetic that a kernel reads is that of this plan, not of an older one."""
    n = SymbolicDim.named("n")
    b = GraphBuilder()
    x = b.input((n, 2))
    size = b.node(Gather(), b.node(Shape(), x), b.constant(np.array([0])))
    graph = b.graph(b.node(Add(), size, b.node(Reshape(), size, b.constant(np.array([1])))), size)
    scaled = b.graph(b.node(Mul(), b.node(Expand(), b.input((1,), INT64), size), size))
    for tested in (graph, scaled):
        session = Session(tested, backend="numpy")
        for count in (2, 5, 2):
            feeds = {"x0": np.zeros((count, 2), np.float32), "x1": np.array([3])}
            feeds = {name: feeds[name] for name in tested.inputs}
            assert_close(session.run(feeds), evaluate(tested, np, feeds))


@pytest.mark.parametrize("shape", [(2, 6), (3, 4), (12, 1)])
def test_shapes_from_the_values_of_a_feed(shape: tuple[int, int]) -> None:
    b = GraphBuilder()
    x, wanted = b.input((3, 4)), b.input((2,), INT64)
    graph = b.graph(b.node(Relu(), b.node(Reshape(), x, wanted)))
    session = Session(graph, backend="numpy")
    feeds = random_feeds(graph) | {"x1": np.array(shape)}
    outputs = session.run(feeds)
    assert_close(outputs, evaluate(graph, np, feeds))
    assert outputs[graph.outputs[0]].shape == shape
    assert session.executable(feeds).plan.complete


def test_shapes_from_values_through_arithmetic() -> None:
    b = GraphBuilder()
    length, x = b.input((1,), INT64), b.input((10,))
    doubled = b.node(Add(), length, length)
    cut = b.node(Slice(), x, b.constant(np.array([0])), doubled)
    filled = b.node(ConstantOfShape(), doubled)
    graph = b.graph(cut, filled)
    session = Session(graph, backend="numpy")
    for count in (1, 3, 4):
        feeds = {"x0": np.array([count]), "x1": np.arange(10, dtype=np.float32)}
        assert_close(session.run(feeds), evaluate(graph, np, feeds))


def test_the_plan_knows_its_graph_and_types() -> None:
    graph = residual(8)
    made = plan(graph)
    assert made.fingerprint == graph.fingerprint
    assert made.inputs == {"x0": TensorType(FLOAT32, (1, 8, 8, 8))}
    assert made.backends == ("numpy",)
    assert made.seconds > 0
