"""Generated elementwise operators, alone and as expressions, over odd shapes and both layouts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as cartesian

import numpy as np
import pytest

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops import logic
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.preinference.planner import make_plan
from mnnpy.runtime.registry import load_backend, with_fallbacks
from tests.backends.test_kernels import Array, candidates, normal, run_kernel
from tests.runtime.graphs import GraphBuilder

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 90, -90, 3e38], np.float32)

UNARY: tuple[Op, ...] = (
    *(ew.Abs(), ew.Neg(), ew.Exp(), ew.Log(), ew.Sqrt(), ew.Reciprocal(), ew.Floor(), ew.Ceil()),
    *(ew.Round(), ew.Sign(), ew.Erf(), ew.Sin(), ew.Cos(), act.Relu(), act.Sigmoid(), act.Tanh()),
    *(act.LeakyRelu(0.2), act.LeakyRelu(2.0), act.ThresholdedRelu(0.5), act.Shrink(0.4, 0.1)),
    *(act.HardSigmoid(), act.HardSwish(), act.Swish(), act.Swish(1.5), act.Softplus()),
    *(act.Softsign(), act.Mish(), act.Gelu(), act.Gelu("tanh"), act.Elu(), act.Elu(-0.5)),
    *(act.Selu(), act.Celu(), act.Celu(0.3)),
)

PAIRS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((1,), (33,)),
    ((4099,), (4099,)),
    ((3, 5000), (3, 1)),
    ((3, 1), (1, 33)),
    ((7, 15), (15,)),
    ((2, 3, 4, 5, 6), (4, 1, 6)),
    ((2, 17, 5, 7), (2, 17, 5, 7)),
    ((2, 17, 5, 7), ()),
    ((2, 17, 5, 7), (17, 1, 1)),
    ((1, 17, 1, 1), (2, 17, 5, 7)),
    ((2, 17, 5, 7), (2, 17, 1, 1)),
    ((2, 17, 5, 7), (2, 1, 5, 7)),
    ((2, 17, 5, 7), (1, 17, 5, 1)),
    ((2, 17, 5, 7), (1, 1, 1, 7)),
    ((2, 17, 5, 7), (5, 7)),
    ((3, 33, 1, 1), (3, 33, 1, 1)),
    ((1, 16, 13, 1), (1, 16, 13, 1)),
    ((2, 1, 5, 7), (2, 1, 5, 7)),
    ((2, 3, 1, 300), (2, 3, 4, 1)),
    ((3, 1, 13, 14), (1, 16, 1, 1)),
)


def task_of(op: Op, arrays: list[Array], constants: tuple[int, ...] = ()) -> Task:
    values = tuple(Value(type_of(a), a if i in constants else None) for i, a in enumerate(arrays))
    return Task(op, values, op.infer(*values))


def check(op: Op, arrays: list[Array], constants: tuple[int, ...] = ()) -> None:
    """Every configuration, with and without a halo beyond the needed, against the reference."""
    backend, task = load_backend("numba"), task_of(op, arrays, constants)
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    with np.errstate(all="ignore"):
        wanted = op.reference(np, *wide)[0].astype(np.float32)
    met = list(candidates(backend, task))
    assert met, "no generated kernel takes it"
    for (kernel, config), halo in cartesian(met, (0, 2)):
        found = run_kernel(backend, kernel, config, task, arrays, halo)
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-30, err_msg=str(config))


@pytest.mark.parametrize("op", UNARY, ids=repr)
def test_unary_over_odd_shapes(op: Op) -> None:
    for shape in ((1,), (3, 17), (2, 17, 3, 5)):
        check(op, [normal(*shape)])
    check(op, [SPECIAL])


@pytest.mark.parametrize("shapes", PAIRS, ids=str)
@pytest.mark.parametrize("constants", [(), (0,), (1,)], ids=str)
def test_broadcasting_over_odd_shapes(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], constants: tuple[int, ...]
) -> None:
    a, b = (np.asarray(normal(*shape), np.float32) for shape in shapes)
    check(ew.Sub(), [a, b], constants)
    check(ew.Div(), [b, np.asarray(a + 5)], constants)


@pytest.mark.parametrize(
    ("op", "arrays", "constants"),
    [
        (ew.Max(), [normal(3, 17), normal(17), normal(3, 1)], ()),
        (ew.Min(), [normal(3, 17), SPECIAL[:1], normal(3, 1)], ()),
        (ew.Sum(), [normal(2, 17, 5, 5), normal(17, 1, 1)], (1,)),
        (ew.Mean(), [normal(2, 17, 5, 5), normal(17, 1, 1), normal(1)], (1,)),
        (ew.Where(), [normal(3, 17) > 0, normal(17), normal(3, 17)], ()),
        (ew.Where(), [normal(3, 1, 5) > 0, normal(3, 16, 5), np.float32(-np.inf)], (2,)),
        (ew.Where(), [normal(2, 1, 5, 5) > 0, normal(2, 17, 5, 5), normal(17, 1, 1)], (2,)),
        (ew.Where(), [np.array(True), normal(33), normal(33)], ()),
        (act.PRelu(), [normal(2, 17, 5, 5), normal(17, 1, 1)], (1,)),
        (act.SwiGLU(), [normal(3, 17), normal(3, 17)], ()),
        (act.Clip(), [normal(3, 17), np.float32(-0.5)], (1,)),
        (act.Clip(), [normal(3, 17), np.float32(-0.5), np.float32(0.25)], ()),
        *((ew.Pow(), [SPECIAL, np.float32(e)], (1,)) for e in (-1, 0.5, 1, 2, 3)),
        (ew.Pow(), [normal(2, 17, 5, 5), np.array([2])], (1,)),
    ],
    ids=lambda value: value.kind if isinstance(value, Op) else "",
)
def test_operators_over_odd_shapes(op: Op, arrays: list[Array], constants: tuple[int, ...]) -> None:
    check(op, [np.asarray(a) for a in arrays], constants)


Build = Callable[[GraphBuilder, str, str, str], str]


def _swish(b: GraphBuilder, x: str, y: str, c: str) -> str:
    return b.node(ew.Mul(), x, b.node(act.Sigmoid(), x))


def _square(b: GraphBuilder, x: str, y: str, c: str) -> str:
    return b.node(ew.Sqrt(), b.node(ew.Mul(), x, x))


def _scale_and_shift(b: GraphBuilder, x: str, y: str, c: str) -> str:
    half = b.input((), np.float32)
    return b.node(act.Gelu(), b.node(ew.Add(), b.node(ew.Mul(), half, x), c))


def _both_sides(b: GraphBuilder, x: str, y: str, c: str) -> str:
    left = b.node(ew.Add(), b.node(act.Tanh(), x), c)
    return b.node(ew.Div(), left, b.node(ew.Exp(), b.node(ew.Sub(), y, c)))


def _chosen(b: GraphBuilder, x: str, y: str, c: str) -> str:
    either = b.node(logic.Or(), b.node(logic.Less(), x, y), b.node(logic.Greater(), x, c))
    return b.node(ew.Where(), b.node(logic.Not(), either), x, b.node(ew.Neg(), y))


def _squared(b: GraphBuilder, x: str, y: str, c: str) -> str:
    two = b.input((), np.float32)
    return b.node(ew.Max(), b.node(ew.Pow(), b.node(ew.Sub(), x, c), two), y)


TREES: dict[str, Build] = {
    "swish": _swish,
    "square": _square,
    "scale and shift": _scale_and_shift,
    "both sides": _both_sides,
    "chosen": _chosen,
    "squared": _squared,
}


def tree(
    name: str, shape: tuple[int, ...], across: tuple[int, ...]
) -> tuple[Graph, dict[str, Array]]:
    """A graph of elementwise operators with arrays for its inputs; numbers are 2."""
    b = GraphBuilder()
    x, y, c = (b.input(s) for s in (shape, shape, across))
    graph = b.graph(TREES[name](b, x, y, c))
    arrays = {x: normal(*shape), y: normal(*shape)[..., ::-1], c: normal(*across) + 3}
    graph = graph.extract(graph.nodes, graph.inputs)
    return graph, {n: np.array(arrays.get(n, 2.0), np.float32) for n in graph.inputs}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("constant", [False, True])
def test_expressions_over_odd_shapes(name: str, constant: bool) -> None:
    for shape, across in (
        ((5,), ()),
        ((3, 33), (33,)),
        ((2, 17, 5, 7), (17, 1, 1)),
        ((2, 17, 5, 7), (1, 17, 1, 1)),
        ((1, 3, 8, 8), (1, 1, 8, 1)),
        ((2, 17, 7), (17, 1)),
        ((2, 17, 7), (2, 1, 1)),
        ((1, 3, 8), (8,)),
    ):
        graph, arrays = tree(name, shape, across)
        known = [(a.shape == across and constant) or a.shape == () for a in arrays.values()]
        check(Fused(graph), list(arrays.values()), tuple(np.flatnonzero(known)))


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_one_step(name: str) -> None:
    graph, arrays = tree(name, (4, 200, 100), (100,))
    constants = {name: array for name, array in arrays.items() if array.shape == ()}
    types = {name: t for name, t in graph.inputs.items() if name not in constants}
    graph = Graph(graph.nodes, types, graph.outputs, constants)
    inputs = {name: Value(declared) for name, declared in types.items()}
    plan = make_plan(graph, inputs, with_fallbacks("numba")).plan
    assert [step.choice.scheme for step in plan.steps] == ["elementwise"]


@pytest.mark.parametrize(
    ("op", "arrays", "constants", "reason"),
    [
        (ew.Pow(), [normal(3), np.float32(2.5)], (1,), "Pow is generated for the exponents"),
        (ew.Pow(), [normal(3), normal(3)], (), "Pow is generated for the exponents"),
        (ew.Add(), [np.arange(3), np.arange(3)], (), "not float32"),
        (ew.Where(), [normal(3) > 0, normal(3) > 0, normal(3) > 0], (), "not float32"),
    ],
)
def test_rejects(op: Op, arrays: list[Array], constants: tuple[int, ...], reason: str) -> None:
    backend, task = load_backend("numba"), task_of(op, list(map(np.asarray, arrays)), constants)
    kernels = [k for k in backend.kernels(op) if k.scheme == "elementwise"]
    assert [reason in str(k.reject(task, backend.describe())) for k in kernels] == [True]


ANCHORS: dict[str, tuple[Op, list[Array], tuple[int, ...]]] = {
    "3x3": (Conv(pads=(1, 1, 1, 1)), [normal(1, 17, 9, 7), normal(33, 17, 3, 3), normal(33)], (2,)),
    "pointwise": (Conv(), [normal(2, 16, 5, 7), normal(16, 16, 1, 1), normal(16)], (2,)),
    "depthwise": (
        Conv(pads=(1, 1, 1, 1), group=17),
        [normal(1, 17, 9, 7), normal(17, 1, 3, 3), normal(17)],
        (2,),
    ),
    "of rows": (Conv(pads=(1, 2)), [normal(2, 17, 13), normal(33, 17, 3), normal(33)], (2,)),
    "gemm": (Gemm(), [normal(15, 33), normal(33, 35), normal(35)], (2,)),
    "matmul": (MatMul(), [normal(2, 15, 33), normal(33, 35)], ()),
    "matmul of both": (MatMul(), [normal(2, 15, 33), normal(2, 33, 35)], (1,)),
}
"""Operator, inputs, and where a bias is constant; a second input is but for the last."""

Steps = list[tuple[Op, tuple[str, ...]]]

CHAINS: dict[str, Steps] = {
    **{op.kind: [(op, ("x",))] for op in (act.Gelu(), act.Swish(), act.Tanh(), ew.Exp())},
    "scaled": [(ew.Mul(), ("number", "x")), (ew.Sub(), ("number", "x"))],
    "gated": [(act.Sigmoid(), ("x",)), (ew.Mul(), ("x", "full"))],
    "residual": [(ew.Sub(), ("full", "x")), (act.Softplus(), ("x",)), (ew.Add(), ("x", "full"))],
    "power": [(ew.Pow(), ("x", "number")), (ew.Sqrt(), ("x",))],
    "row": [(ew.Add(), ("row", "x")), (act.Elu(), ("x",))],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_epilogues_over_odd_shapes(anchor: str, chain: str) -> None:
    op, arrays, biases = ANCHORS[anchor]
    b = GraphBuilder()
    given = {b.input(a.shape): a / 4 for a in arrays}
    known = {name for i, name in enumerate(given) if i in biases or (i == 1 and biases != (1,))}
    (y,) = task_of(op, arrays).outputs
    operands = {"number": np.float32(2), "full": normal(*y.shape), "row": normal(y.shape[-1])}
    names = {"x": b.node(op, *given)}
    for step, reads in CHAINS[chain]:
        for read in reads:
            if read not in names:
                names[read] = b.input(operands[read].shape)
                given[names[read]] = np.asarray(operands[read])
                known |= {names[read]} - {names.get("full")}
        names["x"] = b.node(step, *(names[read] for read in reads))
    graph = b.graph(names["x"])
    graph = graph.extract(graph.nodes, graph.inputs)
    constants = tuple(i for i, name in enumerate(graph.inputs) if name in known)
    fused, inputs = Fused(graph), [given[name] for name in graph.inputs]
    backend, task = load_backend("numba"), task_of(fused, inputs, constants)
    met = list(candidates(backend, task))
    assert bool(met) == (chain != "row" or anchor == "matmul"), "a row is a matrix product's bias"
    wanted = fused.reference(np, *(a.astype(np.float64) for a in inputs))[0]
    for kernel, config in met:
        found = run_kernel(backend, kernel, config, task, inputs, 1)
        error = np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))
        assert error <= 1e-5 + kernel.max_error(task, config), f"{kernel.scheme} {config}"
