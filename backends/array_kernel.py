"""Kernels that run a scheme with an array module: what the NumPy and CuPy backends share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    FLOAT32,
    FLOAT64,
    Array,
    ArrayModule,
    DType,
    TensorType,
    Value,
)
from mnnpy.runtime.layouts import PLAIN, Layout
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
from mnnpy.runtime.preinference.regions import (
    Anchored,
    anchored_chains,
    is_anchored,
    split_anchored,
)
from mnnpy.schemes.elementwise import broadcast_at, write
from mnnpy.schemes.geometry import in_order


@dataclass(frozen=True, slots=True)
class ArrayKernel:
    """A scheme run by an array module, in plain layout, alone or as the anchor of a region."""

    algorithm: Scheme
    load: Callable[[], ArrayModule]
    product_dtypes: tuple[DType, ...] = (FLOAT32, FLOAT64)
    """Element types whose sums of products the array module computes precisely and fast."""

    borrows: ClassVar[bool] = False

    @property
    def scheme(self) -> str:
        return self.algorithm.name

    @property
    def last_resort(self) -> bool:
        return self.algorithm.last_resort

    def reject(self, task: Task, device: Device) -> str | None:
        if isinstance(task.op, Fused) and not self.algorithm.finishes:
            return "cannot carry an epilogue"
        if self.algorithm.finishes and task.output().dtype not in self.product_dtypes:
            return f"products of {task.output().dtype} are left to the reference"
        if self.algorithm.finishes and _is_empty(task):
            return "products of nothing are left to the reference"
        return self.algorithm.reject(self._anchored(task).task)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        return self.algorithm.configs(self._anchored(task).task, device.grain_nbytes)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (PLAIN,) * len(task.inputs), (PLAIN,) * len(task.outputs)

    def work(self, task: Task, config: Config) -> Work:
        anchored = self._anchored(task)
        work = self.algorithm.work(anchored.task, config)
        # A pass over a part that is still in cache costs about half of one through memory.
        passes = len(anchored.epilogue)
        return replace(
            work,
            nbytes=work.nbytes + passes * task.output().nbytes // 2,
            launches=work.launches + passes,
        )

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return self.algorithm.workspace_nbytes(self._anchored(task).task, config)

    def max_error(self, task: Task, config: Config) -> float:
        return self.algorithm.max_error(self._anchored(task).task, config)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return () if isinstance(task.op, Fused) else self.algorithm.inplace(task)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        anchored = self._anchored(task)
        packed = self.algorithm.packed_inputs(anchored.task, config)
        return tuple(place for index in packed if (place := anchored.positions[index]) is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        return self.algorithm.pack(self.load(), self._anchored(task).task, config)

    def packing_config(self, config: Config) -> Config:
        return config

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        xp = self.load()
        anchored = self._anchored(task)
        finish = _epilogue(xp, anchored, buffers)
        inner = replace(
            buffers,
            inputs=tuple(
                None if index is None else buffers.inputs[index] for index in anchored.positions
            ),
            finish=finish,
        )
        return self.algorithm.bind(xp, anchored.task, config, inner)

    def _anchored(self, task: Task) -> Anchored:
        """What the scheme computes and what comes behind it; all of it where it does not finish."""
        if self.algorithm.finishes:
            return split_anchored(task)
        return Anchored(task, tuple(range(len(task.inputs))), None, ())


def _is_empty(task: Task) -> bool:
    types = (*(value.type for value in task.inputs if value is not None), *task.outputs)
    return any(isinstance(t, TensorType) and 0 in t.shape for t in types)


def _epilogue(
    xp: ArrayModule, anchored: Anchored, buffers: Buffers
) -> Callable[[tuple[Any, ...]], Run | None]:
    """For a part of the output: bias, then the chain of elementwise operators, in place."""
    y = buffers.outputs[0]
    bias = None
    if anchored.bias is not None:
        bias = buffers.inputs[anchored.bias]
        if isinstance(anchored.task.op, Conv | ConvTranspose):
            assert bias is not None
            bias = bias.reshape(-1, *(1,) * (y.ndim - 2))

    def finish(index: tuple[Any, ...]) -> Run | None:
        part = y[index]
        runs: list[Run | None] = []
        if bias is not None:
            runs.append(
                write(xp, anchored.bias_op, (part, broadcast_at(xp, bias, y.shape, index)), part)
            )
        for step in anchored.epilogue:
            inputs: list[Array | None] = []
            for operand in step.operands:
                if operand is None:
                    inputs.append(None)
                elif operand < 0:
                    inputs.append(part)
                else:
                    array = buffers.inputs[operand]
                    assert array is not None
                    inputs.append(broadcast_at(xp, array, y.shape, index))
            runs.append(write(xp, step.op, inputs, part))
        return in_order(runs) if any(runs) else None

    return finish


CHAINED: frozenset[type[Op]] = frozenset(
    (Relu, Clip, Sigmoid, Tanh, LeakyRelu, HardSigmoid, HardSwish, Add, Sub, Mul, Div)
)
"""Elementwise operators that may follow a product in one region."""


def array_kernels(op: Op, kernels: Sequence[ArrayKernel]) -> tuple[ArrayKernel, ...]:
    """Kernels whose scheme is made for the operator, or for a region's anchor."""
    if isinstance(op, Fused):
        anchor = op.graph.nodes[0].op
        if not is_anchored(op.graph):
            return ()
        return tuple(
            kernel
            for kernel in kernels
            if kernel.algorithm.finishes and isinstance(anchor, kernel.algorithm.operators)
        )
    return tuple(kernel for kernel in kernels if isinstance(op, kernel.algorithm.operators))


def epilogue_regions(
    graph: Graph, values: Mapping[str, Value], chained: Collection[type[Op]] = CHAINED
) -> Iterator[tuple[Node, ...]]:
    """Convolutions and matrix products with the elementwise chain behind them."""
    return anchored_chains(graph, values, (Conv, ConvTranspose, MatMul, Gemm), chained)
