"""A network on signals (n, c, w): planned in blocks from end to end, right at every length."""

from __future__ import annotations

import numpy as np
import pytest

import mnnpy
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.ops.activation import Gelu, PRelu, Relu
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Mul
from mnnpy.runtime.ops.pooling import MaxPool
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import Concat
from tests.runtime.graphs import GraphBuilder


def _network() -> Graph:
    b, rng = GraphBuilder(), np.random.default_rng(0)

    def weights(*shape: int) -> str:
        return b.constant(rng.standard_normal(shape).astype(np.float32) / np.float32(shape[-1]))

    def conv(x: str, c: int, k: int, taps: int, **attributes: object) -> str:
        op = Conv(**attributes)  # type: ignore[arg-type]
        return b.node(op, x, weights(k, c // op.group, taps), weights(k))

    x = b.input((SymbolicDim.named("n"), 1, SymbolicDim.named("w")))
    first = b.node(Gelu(), conv(x, 1, 32, 10, strides=(5,)))
    causal = b.node(Relu(), conv(first, 32, 32, 3, pads=(4, 0), dilations=(2,)))
    deep = conv(causal, 32, 32, 5, pads=(2, 2), group=32)
    deep = b.node(PRelu(), deep, weights(32, 1))
    joined = b.node(Concat(axis=1), b.node(Add(), deep, first), causal)
    pooled = b.node(MaxPool((3,), (2,), (1, 1)), b.node(Mul(), joined, weights(1, 64, 1)))
    up = b.node(ConvTranspose(strides=(2,), pads=(1, 1)), pooled, weights(64, 17, 4), weights(17))
    return b.graph(b.node(Transpose((0, 2, 1)), up))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("width", [20, 61, 400])
def test_signals(width: int, batch: int) -> None:
    graph = _network()
    x = np.random.default_rng(width).standard_normal((batch, 1, width)).astype(np.float32)
    with mnnpy.Session(graph, backend="numpy") as session:
        (wanted,) = session.run(x).values()
    with mnnpy.Session(graph, backend="numba") as session:
        (found,) = session.run(x).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_signals_stay_in_blocks() -> None:
    with mnnpy.Session(_network(), backend="numba", threads=1) as session:
        steps = session.plan({"x0": (1, 1, 4000)}).steps
    assert {step.choice.backend for step in steps} == {"numba"}
    assert "copy" not in [step.choice.scheme for step in steps]
