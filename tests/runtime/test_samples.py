"""Which graphs treat the samples of a batch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.models import MODELS, build
from mnnpy.models import load_model
from mnnpy.runtime.errors import MnnpyError
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import INT64, TensorType, Value
from mnnpy.runtime.ops.activation import Clip, Relu
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.control import If
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Identity, Mul, Where
from mnnpy.runtime.ops.generation import Bernoulli, ConstantOfShape, RandomNormalLike
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import (
    BatchNormalization,
    InstanceNormalization,
    LayerNormalization,
    MeanVarianceNormalization,
)
from mnnpy.runtime.ops.pooling import GlobalAveragePool, MaxPool
from mnnpy.runtime.ops.quantization import DynamicQuantizeLinear
from mnnpy.runtime.ops.reduction import ArgMax, CumSum, ReduceMean, ReduceSum, Softmax, TopK
from mnnpy.runtime.ops.resize import Resize
from mnnpy.runtime.ops.shaping import Flatten, Reshape, Shape, Squeeze, Transpose, Unsqueeze
from mnnpy.runtime.ops.slicing import Concat, Expand, Pad, Slice, Split
from mnnpy.runtime.preinference.samples import reason_against_parts
from tests.runtime.graphs import GraphBuilder, random_feeds

BATCH = 4

Build = Callable[[GraphBuilder], Any]
"""Writes a graph for ``BATCH`` samples; returns its outputs' names."""


def with_samples(graph: Graph, samples: int) -> dict[str, Value]:
    """What is inferred for another batch than the declared one."""
    shapes = {n: t for n, t in graph.inputs.items() if isinstance(t, TensorType)}
    inputs = {n: Value(TensorType(t.dtype, (samples, *t.shape[1:]))) for n, t in shapes.items()}
    return infer_values(graph, inputs)


def verdict(graph: Graph, samples: int = 1) -> str | None:
    whole = infer_values(graph)
    try:
        part = with_samples(graph, samples)
    except MnnpyError as error:
        return str(error)
    return reason_against_parts(graph, whole, part)


def assert_parts_agree(graph: Graph, samples: int) -> None:
    """The outputs for all samples are those for parts, one after another."""
    feeds = random_feeds(graph)
    whole = evaluate(graph, np, feeds)
    starts = range(0, BATCH, samples)
    parts = [
        evaluate(graph, np, {n: a[start : start + samples] for n, a in feeds.items()})
        for start in starts
    ]
    for name, expected in whole.items():
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-6)


def built(build_graph: Build) -> Graph:
    b = GraphBuilder()
    outputs = build_graph(b)
    return b.graph(*((outputs,) if isinstance(outputs, str) else outputs))


def floats(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def over(op: Op, *constants: Any, shape: tuple[int, ...] = (BATCH, 3, 4)) -> Build:
    """One operator on an input of samples, and constants."""
    return lambda b: b.node(op, b.input(shape), *map(b.constant, constants))


def reshaped_by_its_shape(b: GraphBuilder) -> str:
    x = b.input((BATCH, 3, 4))
    size = b.node(Shape(end=1), x)
    return b.node(Reshape(), x, b.node(Concat(0), size, b.constant(ints(-1))))


def class_token(b: GraphBuilder) -> str:
    """A constant for every sample, joined with the sample's own."""
    x = b.input((BATCH, 3, 4))
    size = b.node(Concat(0), b.node(Shape(end=1), x), b.constant(ints(1, 4)))
    token = b.node(Expand(), b.constant(floats(1, 1, 4)), size)
    zeros = b.node(ConstantOfShape(), size)
    return b.node(Concat(1), token, x, zeros)


def heads(b: GraphBuilder) -> str:
    """Attention written out, samples and heads as axes of their own."""
    x = b.input((BATCH, 5, 6))
    q = b.node(Transpose((0, 2, 1, 3)), b.node(Reshape(), x, b.constant(ints(0, 0, 2, 3))))
    scores = b.node(Softmax(), b.node(MatMul(), q, b.node(Transpose((0, 1, 3, 2)), q)))
    return b.node(MatMul(), scores, q)


def shuffled_samples(b: GraphBuilder) -> str:
    """(samples, channels) as rows of twice as many, each row still of one sample."""
    x = b.input((BATCH, 6))
    rows = b.node(Reshape(), x, b.constant(ints(-1, 3)))
    return b.node(Softmax(), b.node(MatMul(), rows, b.constant(floats(3, 3))))


def two_inputs(b: GraphBuilder) -> str:
    x, y = b.input((BATCH, 3)), b.input((BATCH, 1))
    return b.node(Mul(), x, y)


def looked_up(b: GraphBuilder) -> str:
    return b.node(Gather(), b.constant(floats(50, 3)), b.input((BATCH, 2), INT64))


def masked_attention(mask: tuple[int, ...]) -> Build:
    def build_graph(b: GraphBuilder) -> str:
        q, k, v = (b.input((BATCH, 2, 5, 6)) for _ in range(3))
        return b.node(Attention(), q, k, v, b.constant(floats(*mask)))

    return build_graph


def halves(b: GraphBuilder) -> tuple[str, ...]:
    return b.nodes_outputs(Split(2, axis=1), b.input((BATCH, 4)), outputs=2)


def resized_by_its_shape(b: GraphBuilder) -> str:
    x = b.input((BATCH, 2, 3, 3))
    sizes = b.node(Concat(0), b.node(Shape(end=2), x), b.constant(ints(6, 6)))
    return b.node(Resize("linear"), x, None, None, sizes)


SEPARABLE: dict[str, Build] = {
    "relu": over(Relu()),
    "clip": over(Clip(), np.float32(0), np.float32(1)),
    "bias": over(Add(), floats(1, 3, 1)),
    "where": lambda b: b.node(
        Where(), b.node(Cast("bool"), x := b.input((BATCH, 3))), x, b.constant(floats(3))
    ),
    "two inputs": two_inputs,
    "convolution": over(Conv(pads=(1, 1, 1, 1)), floats(5, 3, 3, 3), shape=(BATCH, 3, 6, 6)),
    "batch normalization": over(BatchNormalization(), *(np.abs(floats(4, 3)) + 1)),
    "instance normalization": over(InstanceNormalization(), floats(3), floats(3)),
    "layer normalization": over(LayerNormalization(), floats(4), floats(4)),
    "normalization of planes": over(MeanVarianceNormalization((1, 2))),
    "maximum": over(MaxPool((2, 2)), shape=(BATCH, 3, 4, 4)),
    "global pool": over(GlobalAveragePool(), shape=(BATCH, 3, 4, 4)),
    "rows times a matrix": over(MatMul(), floats(4, 5)),
    "matrices times a stack of one": over(MatMul(), floats(1, 4, 5)),
    "a vector times matrices": lambda b: b.node(
        MatMul(), b.constant(floats(3)), b.input((BATCH, 3, 4))
    ),
    "gemm": over(Gemm(transB=1), floats(5, 3), floats(5), shape=(BATCH, 3)),
    "heads": heads,
    "attention, one mask": masked_attention((5, 5)),
    "attention, a mask per head": masked_attention((2, 5, 5)),
    "softmax": over(Softmax(axis=1)),
    "mean": over(ReduceMean(keepdims=0), ints(-1, 1)),
    "arg max": over(ArgMax(axis=-1)),
    "top": over(TopK(axis=1), ints(2)),
    "flatten": over(Flatten()),
    "reshape": over(Reshape(), ints(0, 2, 6)),
    "reshape by its shape": reshaped_by_its_shape,
    "rows of twice as many": shuffled_samples,
    "unsqueeze": over(Unsqueeze(), ints(1)),
    "squeeze": over(Squeeze(), ints(1), shape=(BATCH, 1, 3)),
    "transpose": over(Transpose((0, 2, 1))),
    "gather a channel": over(Gather(axis=1), ints(2, 0)),
    "look up": looked_up,
    "slice": over(Slice(), ints(1), ints(3), ints(2)),
    "split": halves,
    "pad": over(Pad("reflect"), ints(0, 1, 1, 0, 1, 1)),
    "class token": class_token,
    "resize": over(Resize(), floats(0), np.array([1, 1, 2, 2], np.float32), shape=(BATCH, 2, 3, 3)),
    "resize by its shape": resized_by_its_shape,
    "constants folded": lambda b: b.node(
        Add(),
        b.input((BATCH, 3)),
        b.node(ReduceSum(), b.constant(floats(2000, 3)), b.constant([0])),
    ),
}


def scaled_by_its_size(b: GraphBuilder) -> str:
    """Every element times the number of samples."""
    x = b.input((BATCH, 3))
    return b.node(Mul(), x, b.node(Cast("float32"), b.node(Shape(end=1), x)))


def matrix_of_all(b: GraphBuilder) -> str:
    x = b.input((BATCH, 3))
    return b.node(MatMul(), x, b.node(Transpose(), x))


def second_input_alone(b: GraphBuilder) -> str:
    x, y = b.input((BATCH, 3)), b.input((3, 3))
    return b.node(MatMul(), x, y)


def lower_rank(b: GraphBuilder) -> str:
    """Samples of the second input meet the columns of the first."""
    return b.node(
        Add(), b.input((BATCH, BATCH)), b.node(Reshape(), b.input((BATCH,)), b.constant(ints(-1)))
    )


def constant_output(b: GraphBuilder) -> tuple[str, str]:
    x = b.input((BATCH, 3))
    return b.node(Relu(), x), b.node(Identity(), b.constant(floats(BATCH, 3)))


def places_of_maxima(b: GraphBuilder) -> str:
    x = b.input((BATCH, 3, 4, 4))
    return b.nodes_outputs(MaxPool((2, 2)), x, outputs=2)[1]


def branch(b: GraphBuilder) -> str:
    def body(op: Op) -> Graph:
        inner = GraphBuilder()
        return inner.graph(inner.node(op, inner.input((BATCH, 3))))

    condition = b.constant(np.array(True))
    return b.node(If(body(Relu()), body(Softmax(axis=0))), condition, b.input((BATCH, 3)))


def scaled_resize(b: GraphBuilder) -> str:
    """Scales that the number of samples decides."""
    x = b.input((BATCH, 2, 3, 3))
    count = b.node(Cast("float32"), b.node(Shape(end=1), x))
    fraction = b.node(Mul(), count, b.constant(np.array([0.01], np.float32)))
    scale = b.node(Add(), fraction, b.constant(np.array([2.0], np.float32)))
    scales = b.node(Concat(0), b.constant(np.array([1, 1, 2], np.float32)), scale)
    return b.node(Resize("linear"), x, None, scales)


MIXING: dict[str, Build] = {
    "softmax over samples": over(Softmax(axis=0)),
    "softmax from samples on": over(Softmax(axis=0, trailing=True)),
    "mean of all": over(ReduceMean()),
    "mean over samples": over(ReduceMean(), ints(0)),
    "mean over samples counted from the end": over(ReduceMean(), ints(-3)),
    "running sum over samples": over(CumSum(), np.array(0)),
    "training": over(BatchNormalization(training_mode=1), *(np.abs(floats(4, 3)) + 1)),
    "normalization with samples": over(MeanVarianceNormalization(), shape=(BATCH, 3, 4, 4)),
    "layers from samples on": over(LayerNormalization(axis=0), np.float32(1)),
    "all rows times all": matrix_of_all,
    "samples to the left": over(Gemm(transA=1), floats(BATCH, 5), shape=(BATCH, 3)),
    "rows of a constant": lambda b: b.node(
        MatMul(), b.constant(floats(3, BATCH)), b.input((BATCH, 5))
    ),
    "a stack of constants": over(MatMul(), floats(BATCH, 4, 5)),
    "reshape to a number": over(Reshape(), ints(BATCH, 12)),
    "reshape across samples": over(Reshape(), ints(3, -1)),
    "all in one row": over(Flatten(axis=0)),
    "samples moved": over(Transpose((1, 0, 2))),
    "samples reversed": over(Slice(), ints(-1), ints(-9), ints(0), ints(-1)),
    "a sample in front": over(Unsqueeze(), ints(0)),
    "one sample": over(Gather(), ints(0)),
    "samples twice": lambda b: b.node(Concat(0), x := b.input((BATCH, 3)), x),
    "samples in halves": lambda b: b.nodes_outputs(Split(2), b.input((BATCH, 3)), outputs=2),
    "more samples": over(Pad(), ints(1, 0, 0, 0, 0, 0)),
    "resized samples": over(Resize(), floats(0), np.array([2, 1, 1], np.float32)),
    "resize by a scale of its size": scaled_resize,
    "one constant per sample": over(Add(), floats(BATCH, 3, 4)),
    "samples along columns": lower_rank,
    "scaled by its size": scaled_by_its_size,
    "attention, a mask per sample": masked_attention((BATCH, 2, 5, 5)),
    "other sizes of inputs": second_input_alone,
    "an output without samples": constant_output,
    "its size": lambda b: b.node(Shape(), b.input((BATCH, 3))),
    "places of maxima": places_of_maxima,
    "random numbers": over(RandomNormalLike()),
    "random choices": over(Bernoulli()),
    "a scale over all": lambda b: b.nodes_outputs(
        DynamicQuantizeLinear(), b.input((BATCH, 3)), outputs=3
    )[0],
    "a branch": branch,
}


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("name", SEPARABLE)
def test_graphs_that_treat_samples_alone(name: str, samples: int) -> None:
    graph = built(SEPARABLE[name])
    assert verdict(graph, samples) is None
    assert_parts_agree(graph, samples)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("name", MIXING)
def test_graphs_that_mix_samples(name: str, samples: int) -> None:
    assert verdict(built(MIXING[name]), samples)


def test_the_reason_names_the_first_node_that_mixes() -> None:
    b = GraphBuilder()
    mixed = b.node(Softmax(axis=0), b.node(Relu(), b.input((BATCH, 3))))
    assert verdict(b.graph(b.node(Relu(), mixed))) == "Softmax node 'Softmax_1' may mix samples"


@pytest.mark.parametrize("name", MODELS)
def test_benchmark_networks_treat_samples_alone(name: str) -> None:
    assert verdict(load_model(build(name, batch=BATCH).SerializeToString())) is None


def grown(seed: int) -> Graph:
    """A chain of operators along any axes, the samples' among them."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x, shape = b.input((BATCH, 3, BATCH)), (BATCH, 3, BATCH)
    for _ in range(4):
        rank = len(shape)
        axis = int(rng.integers(rank))
        size = int(np.prod(shape))
        choices: list[tuple[Op, list[Any]]] = [
            (Softmax(axis), []),
            (ReduceSum(keepdims=int(rng.integers(2))), [ints(axis)]),
            (Transpose(tuple(rng.permutation(rank).tolist())), []),
            (Reshape(), [ints(BATCH, size // BATCH)]),
            (Reshape(), [ints(0, -1)]),
            (Reshape(), [ints(-1, shape[-1])]),
            (MatMul(), [floats(shape[-1], BATCH)]),
            (Add(), [floats(*shape[axis:])]),
            (Mul(), [floats(1, *shape[1:])]),
            (CumSum(), [np.array(axis)]),
            (Gather(axis), [ints(*range(shape[axis] - 1, -1, -1))]),
            (Slice(), [ints(0), ints(max(1, shape[axis] - 1)), ints(axis)]),
            (Unsqueeze(), [ints(axis)]),
        ]
        op, constants = choices[rng.integers(len(choices))]
        following = b.node(op, x, *map(b.constant, constants))
        inferred = infer_values(b.graph(following))[following].shape
        x, shape = following, tuple(int(dim) for dim in inferred)
        if len(shape) < 2:
            break
    return b.graph(x)


def test_no_graph_is_wrongly_taken_for_one_of_samples_alone() -> None:
    alone = [graph for graph in map(grown, range(600)) if verdict(graph) is None]
    for graph in alone:
        assert_parts_agree(graph, 1)
    assert len(alone) > 30
