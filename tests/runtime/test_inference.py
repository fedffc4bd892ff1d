"""Inference of types and contents, with and without symbols."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, FLOAT32, INT64, TensorType, Value
from mnnpy.runtime.ops.control import If, Loop
from mnnpy.runtime.ops.convolution import ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Div, Mul
from mnnpy.runtime.ops.generation import ConstantOfShape, RandomNormal
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.selection import NonZero
from mnnpy.runtime.ops.shaping import Reshape, Shape, Transpose
from mnnpy.runtime.ops.signal import STFT
from mnnpy.runtime.ops.slicing import Concat
from tests.runtime.graphs import GraphBuilder

N, H = SymbolicDim.named("n"), SymbolicDim.named("h")


def flattened_by_shape(batch: Any) -> Graph:
    """Reshape(x, Concat(Gather(Shape(x), 0), -1)): how exporters write a flatten."""
    b = GraphBuilder()
    x = b.input((batch, 4, 5))
    size = b.node(Gather(), b.node(Shape(), x), b.constant(np.array([0])))
    shape = b.node(Concat(0), size, b.constant(np.array([-1])))
    return b.graph(b.node(Reshape(), x, shape))


@pytest.mark.parametrize(("batch", "shape"), [(2, (2, 20)), (N, (N, 20))])
def test_shape_arithmetic_is_evaluated(batch: Any, shape: tuple[Any, ...]) -> None:
    graph = flattened_by_shape(batch)
    (output,) = graph.outputs
    assert infer_values(graph)[output].type == TensorType(FLOAT32, shape)


def test_symbolic_arithmetic_through_operators() -> None:
    b = GraphBuilder()
    size = b.node(Gather(), b.node(Shape(), b.input((H, 3))), b.constant(np.array(0)))
    double = b.node(Mul(), size, b.constant(np.array(2)))
    half = b.node(Div(), double, b.constant(np.array(2)))
    values = infer_values(b.graph(half))
    assert values[double].ints() == (2 * H,)
    assert values[half].ints() == (H,)


def test_constants_are_folded_into_contents() -> None:
    b = GraphBuilder()
    y = b.node(Add(), b.constant(np.array([1.0, 2.0])), b.constant(np.array([3.0, 4.0])))
    known = infer_values(b.graph(y))[y].known
    assert known is not None
    assert known.tolist() == [4.0, 6.0]


def test_large_and_random_contents_are_not_evaluated() -> None:
    b = GraphBuilder()
    large = b.constant(np.zeros(2000, np.float32))
    y = b.node(Add(), large, large)
    z = b.node(RandomNormal((2,)))
    values = infer_values(b.graph(y, z))
    assert values[y].known is None
    assert values[z].known is None


def test_given_inputs_win_over_declared_ones() -> None:
    graph = flattened_by_shape(N)
    values = infer_values(graph, {"x0": Value(TensorType(FLOAT32, (7, 4, 5)))})
    assert values[graph.outputs[0]].shape == (7, 20)


def test_two_unknown_sizes_never_look_equal() -> None:
    b = GraphBuilder()
    x = b.input((3, 3))
    first, second = b.node(NonZero(), x), b.node(NonZero(), x)
    values = infer_values(b.graph(first, second))
    assert values[first].shape[0] == 2
    assert values[first].shape[1] != values[second].shape[1]


@pytest.mark.parametrize(
    ("op", "shapes", "said"),
    [
        (MatMul(), [(2, 3), (4, 5)], ["MatMul node 'MatMul_0'", "float32(2, 3), float32(4, 5)"]),
        (Add(), [(2, 3), (4,)], ["Add node 'Add_0'", "(2, 3)", "(4)"]),
        (Concat(0), [(2, 3), (2, 4)], ["Concat node 'Concat_0'"]),
        (Transpose((0, 2)), [(2, 3)], ["Transpose node 'Transpose_0'"]),
        (Transpose(), [(2,), (2,)], ["2 inputs do not fit the operator"]),
    ],
)
def test_errors_name_the_node_and_its_types(
    op: Any, shapes: list[tuple[int, ...]], said: list[str]
) -> None:
    b = GraphBuilder()
    y = b.node(op, *(b.input(shape) for shape in shapes))
    with pytest.raises(ShapeError) as caught:
        infer_values(b.graph(y))
    assert all(text in str(caught.value) for text in said), caught.value


def test_too_many_outputs_are_refused() -> None:
    node = Node("n", Transpose(), ("x",), ("y", "z"))
    graph = Graph((node,), {"x": TensorType(FLOAT32, (1,))}, ("z",))
    with pytest.raises(ShapeError, match="has 2 outputs, the operator gives 1"):
        infer_values(graph)


def test_shapes_that_no_array_can_have_are_refused() -> None:
    """Empty ones, too: NumPy makes no array of (0, 2**62, 2)."""
    b = GraphBuilder()
    shape = b.constant(np.array([0, 2**62, 2]))
    y = b.node(ConstantOfShape(), shape)
    with pytest.raises(ShapeError, match="larger than any memory"):
        infer_values(b.graph(y))


def test_loops_are_left_to_sessions() -> None:
    """A count that a hostile file gives must not keep planning busy."""
    inputs = {"i": TensorType(INT64, ()), "go": TensorType(BOOL, ()), "s": TensorType(FLOAT32, ())}
    body = Graph((Node("add", Add(), ("s", "s"), ("t",)),), inputs, ("go", "t")).validate()
    b = GraphBuilder()
    start = b.constant(np.float32(0))
    y = b.node(Loop(body, 1), b.constant(np.array(10**15)), None, start)
    began = time.perf_counter()
    value = infer_values(b.graph(y))[y]
    assert time.perf_counter() - began < 1
    assert (value.type, value.known) == (TensorType(FLOAT32, ()), None)


def branch(op: Op) -> Graph:
    b = GraphBuilder()
    return b.graph(b.node(op, b.input((4,))))


def test_branch_that_does_not_fit_matters_where_it_is_taken() -> None:
    """A vector has no axis 1: only one of the branches can be run on it."""
    fits, fits_not = branch(Transpose((0,))), branch(Transpose((1, 0)))
    unknown, vector = Value(TensorType(BOOL, ())), Value(TensorType(FLOAT32, (4,)))
    taken = Value(TensorType(BOOL, ()), np.array(True))
    assert If(fits_not, fits).infer(unknown, vector) == (TensorType(FLOAT32, (4,)),)
    for op, condition in ((If(fits_not, fits_not), unknown), (If(fits_not, fits), taken)):
        with pytest.raises(ShapeError):
            op.infer(condition, vector)


@pytest.mark.parametrize("pads", [(1, 0, 2, 0), (0, 4, 0, 4)])
def test_a_transposed_convolution_cut_to_nothing(pads: tuple[int, ...]) -> None:
    x, w = (Value(TensorType(FLOAT32, shape)) for shape in ((1, 3, 1, 3), (3, 2, 2, 3)))
    with pytest.raises(ShapeError, match="cut more off"):
        ConvTranspose(pads=pads).infer(x, w)


def test_reshape_to_a_shape_of_unknown_length() -> None:
    b = GraphBuilder()
    y = b.node(Reshape(), b.input((2, 6)), b.input((N,), INT64))
    assert infer_values(b.graph(y))[y].type is None


def test_what_fails_on_constants_is_left_to_the_run() -> None:
    b = GraphBuilder()
    y = b.node(Gather(), b.constant(np.arange(3)), b.constant(np.array([7])))
    value = infer_values(b.graph(y))[y]
    assert (value.type, value.known) == (TensorType(INT64, (1,)), None)


def test_a_real_signal_may_lack_its_last_axis() -> None:
    """torch exports STFT so, against ONNX's text, and ONNX Runtime takes it."""
    signal = np.sin(np.arange(40, dtype=np.float32)).reshape(2, 20)
    step, window = np.array(4), np.hanning(8).astype(np.float32)
    (short,) = STFT().reference(np, signal, step, window)
    (whole,) = STFT().reference(np, signal[..., None], step, window)
    np.testing.assert_array_equal(short, whole)
    known = Value(TensorType(INT64, ()), step)
    inputs = Value(TensorType(FLOAT32, (N, 20))), known, Value(TensorType(FLOAT32, (8,)))
    assert STFT().infer(*inputs) == (TensorType(FLOAT32, (N, 4, 5, 2)),)
