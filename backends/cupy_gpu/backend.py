"""CuPy on an NVIDIA GPU: the generic schemes on device arrays, one arena per plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from mnnpy.backends.array_kernel import ArrayKernel, array_kernels, epilogue_regions
from mnnpy.runtime.coefficients import load_coefficients
from mnnpy.runtime.contracts import BoundStep, Kernel, Program, Run
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT16, FLOAT32, FLOAT64, Array, ArrayModule, Value

_INSTALL = "pip install 'mnnpy[cuda12]' or 'mnnpy[cuda13]', whichever fits the driver"
_PRODUCT_DTYPES = (FLOAT16, FLOAT32, FLOAT64)


class CupyBackend:
    """Runs what has device array code; the rest falls back to the host with copies."""

    name = "cuda"

    @cache  # noqa: B019
    def check(self) -> str | None:
        try:
            cupy = _cupy()
        except ImportError as error:
            return f"CuPy cannot be imported ({error}); {_INSTALL}"
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"no CUDA device answers ({error}); check the driver with nvidia-smi"
        return None if count else "the driver reports no CUDA device"

    @cache  # noqa: B019
    def describe(self) -> Device:
        cupy = _cupy()
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        capability = f"sm_{properties['major']}{properties['minor']}"
        return Device(
            kind="cuda",
            name=properties["name"].decode(),
            memory="cuda",
            features=(capability,),
            threads=properties["multiProcessorCount"],
            memory_nbytes=properties["totalGlobalMem"],
            coefficients=load_coefficients(self.name),
        )

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset(kernel.scheme for kernel in self._kernels)

    def kernels(self, op: Op) -> Sequence[Kernel]:
        return () if op.host_only else array_kernels(op, self._kernels)

    @cached_property
    def _kernels(self) -> tuple[ArrayKernel, ...]:
        from mnnpy.schemes import SCHEMES

        return tuple(ArrayKernel(scheme, _cupy, _PRODUCT_DTYPES) for scheme in SCHEMES)

    def regions(self, graph: Graph, values: Mapping[str, Value]) -> Iterable[tuple[Node, ...]]:
        return epilogue_regions(graph, values)

    def allocate(self, nbytes: int) -> Array:
        return _cupy().empty(nbytes, dtype=np.uint8)

    def upload(self, array: Array) -> Array:
        return _cupy().asarray(array)

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        return _cupy().ndarray(shape, dtype=dtype, memptr=arena.data + offset)

    def copy(self, source: Array, target: Array) -> None:
        cupy = _cupy()
        if isinstance(target, np.ndarray):
            np.copyto(target, cupy.asnumpy(source))
        elif isinstance(source, np.ndarray):
            target.set(np.ascontiguousarray(source))
        else:
            cupy.copyto(target, source)

    def to_host(self, array: Array) -> Array:
        return _cupy().asnumpy(array)

    def bind(self, steps: Iterable[BoundStep], threads: int | None) -> Program:
        return CudaProgram([self._bind(step) for step in steps])

    def _bind(self, step: BoundStep) -> Run:
        return step.kernel.bind(step.task, step.choice.config, step.buffers)

    def running(self, threads: int | None) -> AbstractContextManager[object]:
        return nullcontext()


@dataclass(frozen=True, slots=True)
class CudaProgram:
    """Launches in stream order; reading the outputs waits for them."""

    launches: Sequence[Run]

    def expect(self) -> None:
        """Nothing sleeps."""

    def __call__(self) -> None:
        for launch in self.launches:
            launch()

    @property
    def steps(self) -> Sequence[Run]:
        return [partial(_launch_and_wait, launch) for launch in self.launches]


def _launch_and_wait(launch: Run) -> None:
    launch()
    _cupy().cuda.get_current_stream().synchronize()


def _cupy() -> ArrayModule:
    import cupy

    return cupy
