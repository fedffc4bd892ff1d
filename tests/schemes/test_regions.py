"""Products with an epilogue: bias, additions and activations, in one kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from mnnpy.backends.array_kernel import array_kernels, epilogue_regions
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.activation import (
    Clip,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Relu,
    Sigmoid,
    Tanh,
)
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Div, Mul, Sub
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.preinference.regions import elementwise_trees
from tests.runtime.graphs import GraphBuilder
from tests.schemes.cases import check, normal

Step = tuple[Op, tuple[str, ...]]
"""An operator and its operands: "running", or "full", "channel", "scalar", "low", "high"."""

CHAINS: dict[str, list[Step]] = {
    "relu": [(Relu(), ("running",))],
    "clip": [(Clip(), ("running", "low", "high"))],
    "residual": [(Add(), ("running", "full")), (Relu(), ("running",))],
    "residual first": [(Add(), ("full", "running")), (Clip(), ("running", "low", "high"))],
    "residual by channel": [(Add(), ("running", "channel"))],
    "scale and shift": [(Mul(), ("running", "channel")), (Sub(), ("scalar", "running"))],
    "divided": [(Div(), ("full", "running")), (Tanh(), ("running",))],
    "activations": [(f, ("running",)) for f in (LeakyRelu(0.2), HardSwish(), Sigmoid(), Tanh())],
    "gated": [(HardSigmoid(), ("running",)), (Mul(), ("full", "running"))],
}

ANCHORS: dict[str, tuple[Op, list[tuple[int, ...]]]] = {
    "pointwise": (Conv(), [(2, 3, 5, 7), (17, 3, 1, 1)]),
    "pointwise, bias": (Conv(), [(2, 3, 5, 7), (17, 3, 1, 1), (17,)]),
    "3x3, bias": (Conv(pads=(1, 1, 1, 1)), [(2, 3, 5, 7), (17, 3, 3, 3), (17,)]),
    "1x7": (Conv(pads=(0, 3, 0, 3)), [(1, 3, 5, 7), (15, 3, 1, 7)]),
    "strided, groups": (Conv((2, 2), (1, 0, 0, 1), group=3), [(1, 3, 9, 7), (33, 1, 3, 2), (33,)]),
    "depthwise": (Conv(pads=(1, 1, 1, 1), group=15), [(2, 15, 5, 7), (15, 1, 3, 3), (15,)]),
    "transposed": (ConvTranspose((2, 2)), [(1, 3, 4, 5), (3, 16, 2, 2), (16,)]),
    "one axis": (Conv(pads=(1, 1)), [(2, 3, 9), (5, 3, 3), (5,)]),
    "matmul": (MatMul(), [(33, 17), (17, 15)]),
    "large matmul": (MatMul(), [(130, 129), (129, 131)]),
    "stacked matmul": (MatMul(), [(2, 3, 17), (17, 15)]),
    "gemm": (Gemm(), [(33, 17), (17, 15), (15,)]),
    "gemm, transposed and scaled": (Gemm(0.5, 1.0, 1, 1), [(17, 33), (15, 17), (33, 1)]),
}


def region(anchor: str, chain: str) -> tuple[Fused, list[Any]]:
    """The anchor and its chain as one operator, with its inputs."""
    op, shapes = ANCHORS[anchor]
    b = GraphBuilder()
    arrays = {b.input(shape): normal(i, *shape) for i, shape in enumerate(shapes)}
    running = b.node(op, *arrays)
    shape = infer_values(b.graph(running))[running].shape
    channels = (1,) * (len(shape) - 1) if len(shape) < 3 else (shape[1], *(1,) * (len(shape) - 2))
    operands = {
        "full": normal(10, *map(int, shape)) + 5,
        "channel": normal(11, *map(int, channels)) + 3,
        "scalar": np.float32(0.5),
        "low": np.float32(-2),
        "high": np.float32(3),
    }
    for step, names in CHAINS[chain]:
        inputs = []
        for name in names:
            if name == "running":
                inputs.append(running)
            else:
                operand = np.asarray(operands[name])
                inputs.append(b.input(operand.shape))
                arrays[inputs[-1]] = operand
        running = b.node(step, *inputs)
    graph = b.graph(running)
    types = {name: graph.inputs[name] for name in arrays}
    fused = Fused(graph.extract(graph.nodes, types))
    return fused, [arrays[name] for name in fused.graph.inputs]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_regions(anchor: str, chain: str) -> None:
    fused, arrays = region(anchor, chain)
    expected = fused.reference(np, *[np.asarray(a, np.float64) for a in arrays])[0]
    amplified = float(np.max(1 / np.abs(expected))) if chain == "divided" else 1.0
    met = check(fused, arrays, (1, 2), tolerance=2e-5 * max(1.0, min(amplified, 100.0)))
    assert met
    assert "reference" not in met


@pytest.mark.parametrize("anchor", ANCHORS)
def test_backends_propose_these_regions(anchor: str) -> None:
    fused, _ = region(anchor, "residual")
    proposed = list(epilogue_regions(fused.graph, infer_values(fused.graph)))
    assert [len(nodes) for nodes in proposed] == [3, 2]
    assert array_kernels(fused, ()) == ()


TREES: dict[str, tuple[Callable[[GraphBuilder], str], list[list[str]]]] = {
    "chain": (lambda b: _chain(b, (Relu(), Tanh(), Sigmoid())), [["v0", "v1", "v2"]]),
    "read twice by one node": (
        lambda b: b.node(Mul(), _chain(b, (Relu(),)), "v0"),
        [["v0", "v1"]],
    ),
    "read by two nodes": (
        lambda b: b.node(Mul(), _chain(b, (Relu(), Tanh())), "v0"),
        [["v1", "v2"]],
    ),
    "behind a convolution": (
        lambda b: _chain(b, (Conv(), Relu(), Tanh())),
        [["v1", "v2"]],
    ),
    "of two shapes": (
        lambda b: b.node(Add(), _chain(b, (Relu(), Tanh())), b.node(Tanh(), b.input((3, 1, 1)))),
        [["v0", "v1", "v3"]],
    ),
    "long": (
        lambda b: _chain(b, (Relu(),) * 40),
        [[f"v{i}" for i in range(start, min(start + 16, 40))] for start in (0, 16, 32)],
    ),
    "alone": (lambda b: _chain(b, (Relu(), Conv(), Relu())), []),
}


def _chain(b: GraphBuilder, ops: Sequence[Op]) -> str:
    running = b.input((2, 3, 5, 7))
    for op in ops:
        weights = [b.input((3, 3, 1, 1))] if isinstance(op, Conv) else []
        running = b.node(op, running, *weights)
    return running


@pytest.mark.parametrize("name", TREES)
def test_elementwise_trees(name: str) -> None:
    build, expected = TREES[name]
    b = GraphBuilder()
    graph = b.graph(build(b))
    trees = elementwise_trees(graph, infer_values(graph), (Relu, Tanh, Sigmoid, Mul, Add))
    assert [[node.outputs[0] for node in tree] for tree in trees] == expected


def test_trees_leave_out_what_is_apart() -> None:
    b = GraphBuilder()
    graph = b.graph(_chain(b, (Relu(), Tanh(), Sigmoid())))
    apart = {graph.nodes[0].name}
    (tree,) = elementwise_trees(graph, infer_values(graph), (Relu, Tanh, Sigmoid), apart)
    assert tree == graph.nodes[1:]
