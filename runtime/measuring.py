"""Timing one candidate on the machine at hand."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from mnnpy.runtime.contracts import (
    Backend,
    BoundStep,
    Buffers,
    Choice,
    Config,
    Cost,
    Kernel,
    Program,
    Task,
)
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.types import Array, TensorType, Value
from mnnpy.runtime.layouts import Layout

_FLUSHED_NBYTES = 8 << 20


class Stopwatch:
    """Times kernels with cold near caches, as they run within a network.

    Parameters
    ----------
    repeats : timed runs per candidate; the best counts.
    seconds : most time to spend on one candidate after its first run.
    """

    def __init__(self, threads: int | None = None, repeats: int = 10, seconds: float = 0.1) -> None:
        self.threads = threads
        self.repeats = repeats
        self.seconds = seconds
        self._flushed = np.zeros(_FLUSHED_NBYTES, dtype=np.uint8)
        self._entering: dict[str, float] = {}

    def time(
        self, backend: Backend, kernel: Kernel, task: Task, config: Config, seed: int = 0
    ) -> float:
        """Seconds of one run of the kernel on random inputs, without entering a program."""
        with backend.running(self.threads):
            if backend.name not in self._entering:
                self._entering[backend.name] = self._best(backend.bind([], self.threads))
            alone = self._best(bind_alone(backend, kernel, task, config, self.threads, seed))
        return max(alone - self._entering[backend.name], 1e-8)

    def _best(self, program: Program) -> float:
        program()
        best, spent = np.inf, 0.0
        for _ in range(self.repeats):
            self._flushed += 1
            start = perf_counter()
            program()
            elapsed = perf_counter() - start
            best, spent = min(best, elapsed), spent + elapsed
            if spent > self.seconds:
                break
        return best


def bind_alone(
    backend: Backend,
    kernel: Kernel,
    task: Task,
    config: Config,
    threads: int | None = None,
    seed: int = 0,
) -> Program:
    """One kernel bound to memory of its own, with random inputs and the task's constants."""
    input_layouts, output_layouts = kernel.layouts(task, config)
    packed_inputs = kernel.packed_inputs(task, config)
    rng = np.random.default_rng(seed)
    inputs = tuple(
        None if value is None or position in packed_inputs else _input(backend, value, layout, rng)
        for position, (value, layout) in enumerate(zip(task.inputs, input_layouts, strict=True))
    )
    outputs = tuple(
        _allocate(backend, task.output(index), layout)
        for index, layout in enumerate(output_layouts)
    )
    workspace = backend.allocate(max(kernel.workspace_nbytes(task, config), 1))
    buffers = Buffers(inputs, outputs, workspace, kernel.pack(task, config))
    choice = Choice(backend.name, kernel.scheme, config, input_layouts, output_layouts, Cost(0.0))
    node = Node("alone", task.op, (), ())
    return backend.bind([BoundStep(node, task, choice, kernel, buffers)], threads)


def _input(backend: Backend, value: Value, layout: Layout, rng: np.random.Generator) -> Array:
    if value.constant:
        return backend.upload(value.known)
    array = _allocate(backend, value.tensor, layout)
    backend.copy(random_array(array.shape, value.tensor, rng), array)
    return array


def random_array(shape: tuple[int, ...], tensor: TensorType, rng: np.random.Generator) -> Array:
    """Random content of a tensor's dtype: standard normal, or small non-negative integers."""
    if tensor.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(tensor.dtype)
    return rng.standard_normal(shape, dtype=np.float32).astype(tensor.dtype)


def _allocate(backend: Backend, tensor: TensorType, layout: Layout) -> Array:
    arena = backend.allocate(max(layout.nbytes(tensor), 1))
    return backend.view(arena, 0, layout.physical_shape(tensor), tensor.dtype)
