"""Numba on the host: compiled loops where they beat array code."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from mnnpy.backends import host_memory
from mnnpy.backends.array_kernel import ArrayKernel, array_kernels, epilogue_regions
from mnnpy.runtime.coefficients import load_coefficients
from mnnpy.runtime.contracts import BoundStep, Device, Kernel, Program, Run
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, Value
from mnnpy.runtime.programs import SequentialProgram


class NumbaBackend:
    """Elementwise and depthwise kernels; everything else is NumPy's, in the same memory."""

    name = "numba"

    @cache  # noqa: B019
    def check(self) -> str | None:
        return None if find_spec("numba") else "Numba is not installed; pip install numba"

    @cache  # noqa: B019
    def describe(self) -> Device:
        return Device(
            kind="cpu",
            name=platform.processor() or platform.machine(),
            memory="host",
            threads=host_memory.usable_cores(),
            coefficients=load_coefficients(self.name),
        )

    def kernels(self, op: Op) -> Sequence[Kernel]:
        return array_kernels(op, self._kernels)

    @cached_property
    def _kernels(self) -> tuple[ArrayKernel, ...]:
        from mnnpy.backends.numba_cpu.schemes import CompiledDepthwise, CompiledElementwise

        return tuple(ArrayKernel(s, _numpy) for s in (CompiledElementwise(), CompiledDepthwise()))

    def regions(self, graph: Graph, values: Mapping[str, Value]) -> Iterable[tuple[Node, ...]]:
        return epilogue_regions(graph, values)

    def allocate(self, nbytes: int) -> Array:
        return host_memory.aligned_bytes(nbytes)

    def upload(self, array: Array) -> Array:
        return array

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        return host_memory.array_view(arena, offset, shape, dtype)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(target, source)

    def to_host(self, array: Array) -> Array:
        return array

    def bind(self, steps: Sequence[BoundStep], threads: int | None) -> Program:
        return SequentialProgram([self._bind(step) for step in steps])

    def _bind(self, step: BoundStep) -> Run:
        return step.kernel.bind(step.task, step.choice.config, step.buffers)

    def running(self, threads: int | None) -> AbstractContextManager[object]:
        return _limited_threads(threads)


@contextmanager
def _limited_threads(threads: int | None) -> Iterator[None]:
    import numba

    config: Any = numba.config
    before = numba.get_num_threads()
    most = min(threads or before, config.NUMBA_NUM_THREADS, os.cpu_count() or 1)
    numba.set_num_threads(most)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _numpy() -> ArrayModule:
    return np
