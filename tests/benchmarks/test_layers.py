"""Layers against the ceilings of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.layers import Layer, layer_page, measure_layers, write_layers
from benchmarks.peak import measure_bandwidth, measure_peak
from mnnpy.runtime.contracts import Choice, Cost, Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.preinference.plan import Step
from tests.benchmarks.test_harness import FEEDS, tiny_model

PEAK, BANDWIDTH = 100.0, 20.0


def layer(op: Op, shapes: list[tuple[int, ...]], seconds: float) -> Layer:
    reads = tuple(Value(TensorType(FLOAT32, shape)) for shape in shapes)
    types = op.infer(*reads)
    choice = Choice("numba", "scheme", (("rows", 7),), (), (), Cost(seconds))
    step = Step(Node("node", op, ("x", "w"), ("y",)), choice, types)
    return Layer(step, Task(op, reads, types), seconds, PEAK, BANDWIDTH)


def fused(*ops: Op, shapes: list[tuple[int, ...]]) -> Fused:
    """A chain; every convolution takes the next input as its weights."""
    names = [f"i{index}" for index in range(len(shapes))]
    inputs = {name: TensorType(FLOAT32, s) for name, s in zip(names, shapes, strict=True)}
    nodes, value, weights = [], names[0], iter(names[1:])
    for index, op in enumerate(ops):
        reads = (value, next(weights)) if isinstance(op, Conv) else (value,)
        value = f"v{index}"
        nodes.append(Node(value, op, reads, (value,)))
    return Fused(Graph(tuple(nodes), inputs, (value,), {}))


X = (1, 64, 20, 20)
DEPTHWISE, POINTWISE = (64, 1, 3, 3), (64, 64, 1, 1)
SEPARABLE = [X, DEPTHWISE, POINTWISE]


@pytest.mark.parametrize(
    ("op", "shapes", "seconds", "reason"),
    [
        (Conv(group=64), [X, DEPTHWISE], 1e-3, "depthwise: bound by loads and memory, 0 GB/s"),
        (
            fused(Conv(group=64), Relu(), shapes=[X, DEPTHWISE]),
            [X, DEPTHWISE],
            1e-3,
            "depthwise: bound by loads and memory, 0 GB/s",
        ),
        (
            fused(Conv(group=64), Relu(), Conv(), shapes=SEPARABLE),
            SEPARABLE,
            1e-3,
            "depthwise",
        ),
        (Conv(group=4), [X, (64, 16, 3, 3)], 1e-3, "4 groups of 16 channels"),
        (Conv(), [(1, 3, 20, 20), (64, 3, 3, 3)], 1e-3, "first layer, 3 channels"),
        (Conv(), [X, (64, 64, 3, 3)], 99e-6, "small work, 23.9 MFLOP"),
        (Conv(), [X, (64, 64, 3, 3)], 1e-3, "no reason known, 0 of 20 GB/s"),
        (MatMul(), [(1, 1000), (1000, 1000)], 0.2e-3, "1 row(s): bound by memory, 20 of 20 GB/s"),
        (MatMul(), [(1, 1000), (1000, 1000)], 0.5e-3, "no reason known, 8 of 20 GB/s"),
        (MatMul(), [(9, 1000), (1000, 1000)], 0.2e-3, "no reason known, 20 of 20 GB/s"),
    ],
)
def test_reason(op: Op, shapes: list[tuple[int, ...]], seconds: float, reason: str) -> None:
    assert reason in layer(op, shapes, seconds).reason


@pytest.mark.parametrize(
    ("seconds", "mark", "rate"), [(2e-3, "low", "50%"), (1e-3, "", "100%"), (0.5e-3, "", "200%")]
)
def test_row(seconds: float, mark: str, rate: str) -> None:
    row = layer(MatMul(), [(50, 1000), (1000, 1000)], seconds).row(3)
    assert row[:6] == ["3", "node", "MatMul", "scheme", "rows=7", "50x1000 * 1000x1000 -> 50x1000"]
    assert row[6] == mark
    assert bool(row[7]) == bool(mark)
    assert row[-1] == rate


def test_layers_of_a_model(tmp_path: Path) -> None:
    layers = measure_layers(tiny_model(), FEEDS, "numba", threads=2, repeats=2)
    macs = 2 * 4 * 3 * 9 * 25 + 2 * 100 * 6
    assert sum(layer.task.macs for layer in layers) == macs
    assert all(layer.seconds >= 0 for layer in layers)
    write_layers(tmp_path / "new" / "layers.md", ["a machine"], {"tiny": layer_page(layers)})
    lines = (tmp_path / "new" / "layers.md").read_text().split("\n")
    assert {"# Layers of our plans", "- a machine", "## tiny"} <= set(lines)
    assert [line.split()[3] for line in lines if line.startswith("| ") and " -> " in line] == [
        layer.step.node.name for layer in layers if layer.task.macs
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_ceilings_are_measured(threads: int) -> None:
    found = [
        measure_peak(threads, repeats=2, turns=100),
        measure_bandwidth(threads, nbytes=1 << 20, repeats=2),
    ]
    assert np.isfinite(found).all()
    assert min(found) > 0
