"""Every kernel of every backend against the operators' references, on the backend's own memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product as cartesian
from typing import Any

import numpy as np
import pytest

from mnnpy.backends import host_memory
from mnnpy.runtime.contracts import Backend, BoundStep, Buffers, Choice, Config, Cost, Kernel, Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import TensorType, Value, type_of
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import LayerNormalization
from mnnpy.runtime.ops.pooling import AveragePool, GlobalAveragePool, MaxPool
from mnnpy.runtime.ops.reduction import ReduceMean, Softmax
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.registry import load_backend

Array = np.ndarray[Any, Any]
BACKENDS = ("numpy", "numba", pytest.param("cuda", marks=pytest.mark.cuda))


def normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


def conv(
    n: int, c: int, size: int, k: int, kernel: int, group: int = 1, **attributes: Any
) -> tuple[Op, list[Array], tuple[int, ...]]:
    op = Conv(group=group, **attributes)
    weights = normal(k, c // group, kernel, kernel)
    return op, [normal(n, c, size, size), weights, normal(k)], (1, 2)


def residual_block(
    op: Op, arrays: list[Array], constants: tuple[int, ...]
) -> tuple[Op, list[Array], tuple[int, ...]]:
    """Convolution, bias, residual and clip as one region."""
    x, w, b = arrays
    (y,) = op.infer(*(Value(type_of(array)) for array in arrays))
    lower, upper = np.float32(-12), np.float32(15)
    arrays = [x, w, b, normal(*y.shape), np.asarray(lower), np.asarray(upper)]
    names = ["x", "w", "b", "r", "lower", "upper"]
    nodes = (
        Node("conv", op, ("x", "w", "b"), ("y",)),
        Node("add", ew.Add(), ("r", "y"), ("s",)),
        Node("clip", act.Clip(), ("s", "lower", "upper"), ("z",)),
    )
    types = {name: type_of(array) for name, array in zip(names, arrays, strict=True)}
    return Fused(Graph(nodes, types, ("z",))), arrays, (*constants, 4, 5)


CASES: dict[str, tuple[Op, list[Array], tuple[int, ...]]] = {
    "conv 3x3": conv(2, 3, 13, 16, 3, pads=(1, 1, 1, 1)),
    "conv 3x3 wide": conv(1, 33, 15, 17, 3, pads=(1, 0, 2, 1)),
    "conv 3x3 stride 2": conv(1, 16, 14, 33, 3, pads=(1, 1, 1, 1), strides=(2, 2)),
    "conv 5x5 dilated": conv(1, 15, 13, 3, 5, pads=(4, 4, 4, 4), dilations=(2, 2)),
    "conv 1x1": conv(3, 17, 7, 33, 1),
    "conv 1x1 stride 2": conv(1, 16, 7, 16, 1, strides=(2, 2)),
    "conv grouped": conv(2, 16, 7, 32, 3, group=4, pads=(1, 1, 1, 1)),
    "depthwise 3x3": conv(2, 17, 13, 17, 3, group=17, pads=(1, 1, 1, 1)),
    "depthwise 5x5 stride 2": conv(1, 16, 14, 16, 5, group=16, pads=(2, 2, 2, 2), strides=(2, 2)),
    "depthwise 3x3 asymmetric": conv(1, 3, 7, 3, 3, group=3, pads=(0, 2, 1, 0)),
    "depthwise multiplied": conv(1, 3, 7, 6, 3, group=3, pads=(1, 1, 1, 1)),
    "residual block": residual_block(*conv(2, 17, 13, 17, 3, pads=(1, 1, 1, 1))),
    "residual block transposed": residual_block(
        ConvTranspose(strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 0)),
        [normal(2, 16, 7, 15), normal(16, 17, 3, 3), normal(17)],
        (1, 2),
    ),
    "conv transposed": (
        ConvTranspose(strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
        [normal(2, 16, 7, 7), normal(16, 5, 3, 3), normal(5)],
        (1, 2),
    ),
    "gemm": (Gemm(transB=1), [normal(7, 33), normal(17, 33), normal(17)], (1, 2)),
    "gemm one row": (Gemm(), [normal(1, 131), normal(131, 200), normal(200)], (1, 2)),
    "gemm many rows": (MatMul(), [normal(2, 65, 96), normal(96, 70)], (1,)),
    "gemm scaled": (Gemm(alpha=0.5, beta=2.0), [normal(7, 33), normal(33, 5), normal(5)], (1, 2)),
    "matmul": (MatMul(), [normal(3, 2, 13, 16), normal(3, 2, 16, 7)], ()),
    "matmul broadcast": (MatMul(), [normal(3, 13, 16), normal(16, 7)], (1,)),
    "matmul square": (MatMul(), [normal(129, 131), normal(131, 127)], ()),
    "max pool": (MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), [normal(2, 5, 13, 13)], ()),
    "average pool": (AveragePool((3, 3), (1, 1), (1, 1, 1, 1)), [normal(2, 5, 7, 7)], ()),
    "global average pool": (GlobalAveragePool(), [normal(2, 17, 7, 7)], ()),
    "relu": (act.Relu(), [normal(3, 17, 5)], ()),
    "clip": (act.Clip(), [normal(3, 17), np.float32(-0.5)[None][0:1], np.ones(1, "f4")], (1, 2)),
    "sigmoid": (act.Sigmoid(), [normal(100)], ()),
    "tanh": (act.Tanh(), [normal(100)], ()),
    "hard swish": (act.HardSwish(), [normal(3, 33)], ()),
    "add": (ew.Add(), [normal(3, 17), normal(3, 17)], ()),
    "mul broadcast": (ew.Mul(), [normal(3, 17, 5), normal(17, 1)], ()),
    "div": (ew.Div(), [normal(3, 17), normal(3, 17)], ()),
    "softmax": (Softmax(axis=1), [normal(3, 17, 5)], ()),
    "layer normalization": (LayerNormalization(axis=-1), [normal(3, 17), normal(17)], (1,)),
    "reduce mean": (ReduceMean(), [normal(3, 17, 5), np.array([1])], (1,)),
    "concat": (Concat(axis=1), [normal(2, 3, 5), normal(2, 4, 5)], ()),
    "transpose": (Transpose((1, 2, 0)), [normal(2, 3, 5)], ()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_kernels(backend_name: str, name: str) -> None:
    backend = load_backend(backend_name)
    op, arrays, constants = CASES[name]
    values = tuple(
        Value(type_of(a), a if index in constants else None) for index, a in enumerate(arrays)
    )
    task = Task(op, values, op.infer(*values)[:1])
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    wanted = op.reference(np, *wide)[0]
    for (kernel, config), halo in cartesian(candidates(backend, task), (0, 2)):
        found = run_kernel(backend, kernel, config, task, arrays, halo)
        worst = np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))
        allowed = 1e-5 + kernel.max_error(task, config)
        assert worst <= allowed, f"{kernel.scheme} {dict(config)} is off by {worst:.1e}"


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("op", [act.Relu(), act.Clip(), act.Sigmoid(), ew.Add(), ew.Mul()])
def test_nan_and_infinity_survive(backend_name: str, op: Op) -> None:
    backend = load_backend(backend_name)
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0] * 4, dtype=np.float32)
    bounds = [np.float32(-2), np.float32(2)] if isinstance(op, act.Clip) else []
    second = [np.ones_like(x)] if isinstance(op, ew.Binary) else []
    arrays = [x, *second, *map(np.asarray, bounds)]
    constants = range(1, 3) if bounds else ()
    values = tuple(Value(type_of(a), a if i in constants else None) for i, a in enumerate(arrays))
    task = Task(op, values, op.infer(*values))
    (wanted,) = op.reference(np, *arrays)
    for kernel, config in candidates(backend, task):
        found = run_kernel(backend, kernel, config, task, arrays)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=kernel.scheme)


def candidates(backend: Backend, task: Task) -> Iterator[tuple[Kernel, Config]]:
    device = backend.describe()
    for kernel in backend.kernels(task.op):
        if kernel.reject(task, device) is None:
            for config in kernel.configs(task, device):
                yield kernel, config


def run_kernel(
    backend: Backend,
    kernel: Kernel,
    config: Config,
    task: Task,
    arrays: list[Array],
    extra_halo: int = 0,
) -> Array:
    """The kernel's output 0, run twice on poisoned memory, brought to the host and plain."""
    return run_outputs(backend, kernel, config, task, arrays, extra_halo)[0]


def run_outputs(
    backend: Backend,
    kernel: Kernel,
    config: Config,
    task: Task,
    arrays: Sequence[Array | None],
    extra_halo: int = 0,
) -> list[Array]:
    """All outputs of a kernel; inputs that are None are absent."""
    layouts_in, layouts_out = (
        tuple(_widened(layout, extra_halo) for layout in layouts)
        for layouts in kernel.layouts(task, config)
    )
    packed_inputs = kernel.packed_inputs(task, config)
    inputs = tuple(
        None if array is None or index in packed_inputs else backend.upload(placed(array, layout))
        for index, (array, layout) in enumerate(zip(arrays, layouts_in, strict=True))
    )
    outputs = tuple(
        _poisoned(backend, task.output(i), layout) for i, layout in enumerate(layouts_out)
    )
    workspace = backend.allocate(max(kernel.workspace_nbytes(task, config), 1))
    buffers = Buffers(inputs, outputs, workspace, kernel.pack(task, config))
    choice = Choice(backend.name, kernel.scheme, config, layouts_in, layouts_out, Cost(1.0))
    step = BoundStep(Node("alone", task.op, (), ()), task, choice, kernel, buffers)
    program = backend.bind([step], threads=2)
    with backend.running(2), np.errstate(all="ignore"):
        for _ in range(2):
            workspace[...] = 0xFF
            program()
    return [
        fetched(np.asarray(backend.to_host(output)), task.output(index), layout)
        for index, (output, layout) in enumerate(zip(outputs, layouts_out, strict=True))
    ]


def _widened(layout: Layout, halo: int) -> Layout:
    return replace(layout, halo=layout.halo + halo) if layout.kind == "blocked" else layout


def placed(array: Array, layout: Layout) -> Array:
    """A plain array in a layout; lanes beyond the channels hold NaN, a halo its fill."""
    if layout == PLAIN:
        return array
    border = [(0, 0), (0, 0), *((layout.halo, layout.halo),) * (array.ndim - 2)]
    wide = np.pad(array, border, constant_values=layout.fill)
    if layout.kind == "plain":
        return aligned(wide)
    n, c, *spatial = wide.shape
    blocks = -(-c // layout.block)
    filled = np.full((n, blocks * layout.block, *spatial), np.nan, dtype=array.dtype)
    filled[:, :c] = wide
    by_block = filled.reshape(n, blocks, layout.block, *spatial)
    return aligned(np.moveaxis(by_block, 2, -1))


def aligned(array: Array) -> Array:
    memory = host_memory.aligned_bytes(array.nbytes)
    copy = host_memory.array_view(memory, 0, array.shape, array.dtype)
    copy[...] = array
    return copy


def fetched(array: Array, tensor: TensorType, layout: Layout) -> Array:
    """The plain content of an array in a layout; checks that its halo holds the fill."""
    if layout == PLAIN:
        return array
    inside = (
        slice(None),
        slice(None),
        *(slice(layout.halo, layout.halo + int(d)) for d in tensor.shape[2:]),
    )
    border = array.copy()
    border[inside] = layout.fill
    assert (border == layout.fill).all(), "the halo does not hold its fill"
    if layout.kind == "plain":
        return array[inside]
    n, c = int(tensor.shape[0]), int(tensor.shape[1])
    by_channel = np.moveaxis(array[inside], -1, 2)
    return by_channel.reshape(n, -1, *by_channel.shape[3:])[:, :c]


def _poisoned(backend: Backend, tensor: TensorType, layout: Layout) -> Any:
    arena = backend.allocate(max(layout.nbytes(tensor), 1))
    arena[...] = 0xFF
    return backend.view(arena, 0, layout.physical_shape(tensor), tensor.dtype)
