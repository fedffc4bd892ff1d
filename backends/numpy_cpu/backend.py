"""NumPy on the host: BLAS for products, array code for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from typing import Any

import numpy as np

from mnnpy.backends import host_memory
from mnnpy.backends.array_kernel import ArrayKernel, array_kernels, epilogue_regions
from mnnpy.runtime.coefficients import load_coefficients
from mnnpy.runtime.contracts import BoundStep, Kernel, Program, Run
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import ArrayModule, Value
from mnnpy.runtime.programs import SequentialProgram

_GRAIN_NBYTES = 256 << 10


class NumpyBackend(host_memory.HostMemory):
    """Runs every operator; everything else falls back to it."""

    name = "numpy"

    def check(self) -> str | None:
        return None

    @cache  # noqa: B019
    def describe(self) -> Device:
        return Device(
            kind="cpu",
            name=host_memory.processor_name(),
            memory="host",
            threads=host_memory.usable_cores(),
            grain_nbytes=_GRAIN_NBYTES,
            coefficients=load_coefficients(self.name),
        )

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset(kernel.scheme for kernel in self._kernels)

    def kernels(self, op: Op) -> Sequence[Kernel]:
        return array_kernels(op, self._kernels)

    @cached_property
    def _kernels(self) -> tuple[ArrayKernel, ...]:
        from mnnpy.schemes import SCHEMES

        return tuple(ArrayKernel(scheme, _numpy) for scheme in SCHEMES)

    def regions(self, graph: Graph, values: Mapping[str, Value]) -> Iterable[tuple[Node, ...]]:
        return epilogue_regions(graph, values)

    def bind(self, steps: Iterable[BoundStep], threads: int | None) -> Program:
        return SequentialProgram([self._bind(step) for step in steps])

    def _bind(self, step: BoundStep) -> Run:
        return step.kernel.bind(step.task, step.choice.config, step.buffers)

    @contextmanager
    def running(self, threads: int | None) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(np.errstate(all="ignore"))
            if threads is not None:
                limited = _blas_controller().limit(limits=threads, user_api="blas")
                stack.enter_context(limited)
            yield


def _numpy() -> ArrayModule:
    return np


@cache
def _blas_controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
