"""Generated vector code on the host; what it cannot run, NumPy runs in the same memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import chain, groupby
from typing import Any

from mnnpy.backends import host_memory
from mnnpy.backends.array_kernel import epilogue_regions
from mnnpy.runtime.coefficients import load_coefficients
from mnnpy.runtime.contracts import BoundStep, Kernel, Program, Run
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.regions import elementwise_trees
from mnnpy.runtime.programs import SequentialProgram

_EFFICIENCY, _SECONDS_PER_WAIT = 0.9, 5e-6
"""What a second thread adds, and what waiting for it behind a step costs."""

_WORTH_WAKING = 1e-4
"""Seconds of predicted work from which on a second thread is woken."""


class NumbaBackend(host_memory.HostMemory):
    """Kernels written as LLVM vector code for this machine and the shapes at hand."""

    name = "numba"

    @cache  # noqa: B019
    def check(self) -> str | None:
        return None if find_spec("numba") else "Numba is not installed; pip install numba"

    @cache  # noqa: B019
    def describe(self) -> Device:
        from mnnpy.backends.numba_cpu.tile_rates import machine_rates

        return Device(
            kind="cpu",
            name=host_memory.processor_name(),
            memory="host",
            threads=host_memory.usable_cores(),
            cache_nbytes=host_memory.cache_nbytes(),
            efficiency=_EFFICIENCY,
            seconds_per_wait=_SECONDS_PER_WAIT,
            coefficients=load_coefficients(self.name),
            tile_rates=machine_rates(),
        )

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset(kernel.scheme for kernel in self._kernels)

    def kernels(self, op: Op) -> Sequence[Kernel]:
        if isinstance(op, Fused):
            return [kernel for kernel in self._kernels if kernel.carries(op.graph)]
        return [kernel for kernel in self._kernels if isinstance(op, kernel.operators)]

    @cached_property
    def _kernels(self) -> Sequence[Any]:
        from mnnpy.backends.numba_cpu.attention import AttentionTiles
        from mnnpy.backends.numba_cpu.batch_norm import NormalizeBatch
        from mnnpy.backends.numba_cpu.casts import CastElements
        from mnnpy.backends.numba_cpu.channels_last import TransposeBlocks
        from mnnpy.backends.numba_cpu.concat import ConcatBlocks
        from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise
        from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
        from mnnpy.backends.numba_cpu.conv_grouped import ConvGrouped
        from mnnpy.backends.numba_cpu.conv_inverted import ConvInverted
        from mnnpy.backends.numba_cpu.conv_pooled import ConvPooled
        from mnnpy.backends.numba_cpu.conv_separable import ConvSeparable
        from mnnpy.backends.numba_cpu.conv_strassen import ConvStrassen
        from mnnpy.backends.numba_cpu.conv_transposed import ConvTransposedDirect
        from mnnpy.backends.numba_cpu.conv_volume import ConvVolume
        from mnnpy.backends.numba_cpu.conv_widened import ConvWidened
        from mnnpy.backends.numba_cpu.conv_winograd import ConvWinograd
        from mnnpy.backends.numba_cpu.conv_winograd_pooled import ConvWinogradPooled
        from mnnpy.backends.numba_cpu.conv_winograd_volume import ConvWinogradVolume
        from mnnpy.backends.numba_cpu.elementwise import ElementwiseVectors
        from mnnpy.backends.numba_cpu.gather import GatherSlices
        from mnnpy.backends.numba_cpu.jit import host_jit
        from mnnpy.backends.numba_cpu.layout_copy import LayoutCopy
        from mnnpy.backends.numba_cpu.matmul_packed import MatMulPacked
        from mnnpy.backends.numba_cpu.matmul_plain import MatMulPanels
        from mnnpy.backends.numba_cpu.matmul_strassen import MatMulStrassen
        from mnnpy.backends.numba_cpu.moves import MoveElements
        from mnnpy.backends.numba_cpu.normalizations import (
            NormalizeGroups,
            NormalizePlanes,
            NormalizeRows,
        )
        from mnnpy.backends.numba_cpu.pad import PadPlanes
        from mnnpy.backends.numba_cpu.pooling import PoolWindow
        from mnnpy.backends.numba_cpu.recurrent import RecurrentSteps
        from mnnpy.backends.numba_cpu.reductions import ReduceLines, ReducePlanes
        from mnnpy.backends.numba_cpu.resize import ResizePlanes
        from mnnpy.backends.numba_cpu.softmax import SoftmaxLines
        from mnnpy.backends.numba_cpu.view import ViewInPlace

        kinds = (
            *(
                ConvDirect,
                ConvWinograd,
                ConvDepthwise,
                ConvGrouped,
                ConvSeparable,
                ConvInverted,
                ConvWidened,
                ConvPooled,
                ConvWinogradPooled,
                ConvStrassen,
                ConvVolume,
                ConvWinogradVolume,
                MatMulPacked,
                MatMulStrassen,
                MatMulPanels,
                AttentionTiles,
                PoolWindow,
            ),
            *(SoftmaxLines, NormalizeRows, NormalizeGroups, NormalizePlanes),
            *(ReduceLines, ReducePlanes),
            *(NormalizeBatch, ResizePlanes, PadPlanes, MoveElements, GatherSlices, CastElements),
            *(ConvTransposedDirect, RecurrentSteps),
            *(TransposeBlocks, ConcatBlocks, ElementwiseVectors, ViewInPlace, LayoutCopy),
        )
        return [kind(host_jit()) for kind in kinds]

    def regions(self, graph: Graph, values: Mapping[str, Value]) -> Iterable[tuple[Node, ...]]:
        from mnnpy.backends.numba_cpu.attention_region import attention_regions
        from mnnpy.backends.numba_cpu.conv_chain import chained_convolutions
        from mnnpy.backends.numba_cpu.conv_pool import pooled_convolutions
        from mnnpy.backends.numba_cpu.pointwise import GENERATED

        behind_products = list(epilogue_regions(graph, values, GENERATED))
        taken = {node.name for region in behind_products for node in region}
        return chain(
            behind_products,
            chained_convolutions(graph, behind_products, (False, True, False)),
            chained_convolutions(graph, behind_products, (True, False)),
            chained_convolutions(graph, behind_products, (False, True)),
            pooled_convolutions(graph, behind_products),
            attention_regions(graph),
            elementwise_trees(graph, values, GENERATED, taken),
            elementwise_trees(graph, values, GENERATED),
        )

    def bind(self, steps: Iterable[BoundStep], threads: int | None) -> Program:
        from mnnpy.backends.numba_cpu.native import NativeCall, NativeProgram, NativeSequence

        kinds = NativeCall | NativeSequence
        bound = [
            (step.kernel.bind(step.task, step.choice.config, step.buffers), step) for step in steps
        ]
        parts: list[Program] = []
        for native, group in groupby(bound, key=lambda entry: isinstance(entry[0], kinds)):
            runs, members = zip(*group, strict=True)
            team = self._team(members, threads)
            parts.append(NativeProgram(runs, team) if native else SequentialProgram(runs))
        if not parts:
            return NativeProgram([], 1)
        return parts[0] if len(parts) == 1 else _Parts(parts)

    def _team(self, steps: Sequence[BoundStep], threads: int | None) -> int:
        """Threads for a native program: one where waking the others costs more than they save."""
        seconds = sum(step.choice.cost.seconds for step in steps)
        most = min(threads or self.describe().threads, os.cpu_count() or 1)
        return most if seconds > _WORTH_WAKING else 1

    def running(self, threads: int | None) -> AbstractContextManager[object]:
        return nullcontext()


class _Parts:
    """Programs one after another."""

    def __init__(self, parts: Sequence[Program]) -> None:
        self._parts = parts
        self.steps: Sequence[Run] = [step for part in parts for step in part.steps]

    def expect(self) -> None:
        self._parts[0].expect()

    def __call__(self) -> None:
        for part in self._parts:
            part()
