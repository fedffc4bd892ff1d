"""Running one kernel on one task, with everything poisoned that it must not rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mnnpy.backends.array_kernel import ArrayKernel
from mnnpy.runtime.contracts import Buffers, Config, Scheme, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import TensorType, Value, type_of
from mnnpy.schemes import SCHEMES

GRAINS = (1, 4096, 1 << 40)
"""Bytes of output to finish at a time: one row, some rows, all of them."""

Array = np.ndarray[Any, Any]


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def task_of(op: Op, arrays: Sequence[Array | None], constants: Sequence[int] = ()) -> Task:
    """A task on these inputs; the content of ``constants`` is known while planning."""
    values = tuple(
        None if array is None else Value(type_of(array), array if index in constants else None)
        for index, array in enumerate(arrays)
    )
    return Task(op, values, op.infer(*values))


def device(grain: int = 1 << 40) -> Device:
    return Device(kind="cpu", name="test", memory="host", grain_nbytes=grain)


def kernels(task: Task, grain: int = 1 << 40) -> Iterator[tuple[ArrayKernel, Config]]:
    """Every scheme, with every configuration, that takes the task."""
    for scheme in SCHEMES:
        if _applies(scheme, task):
            kernel = ArrayKernel(scheme, lambda: np)
            if kernel.reject(task, device()) is None:
                for config in kernel.configs(task, device(grain)):
                    yield kernel, config


def _applies(scheme: Scheme, task: Task) -> bool:
    from mnnpy.runtime.ops.fused import Fused

    op = task.op.graph.nodes[0].op if isinstance(task.op, Fused) else task.op
    return isinstance(op, scheme.operators)


def poisoned(tensor: TensorType) -> Array:
    """An array full of NaN, or of the integer that all ones make."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    raw = np.full(count * tensor.dtype.itemsize, 0xFF, np.uint8)
    return raw.view(tensor.dtype).reshape(tensor.shape)


def run(
    kernel: ArrayKernel,
    config: Config,
    task: Task,
    arrays: Sequence[Array | None],
    inplace: int | None = None,
) -> list[Array]:
    """Outputs of two runs in a row (the second must not depend on the first).

    What the network computes is filled in after binding only. Workspace is exactly as large as the
    kernel asks for; inputs must stay as they are, but for ``inplace``, which is the memory of
    output 0.
    """
    packed = kernel.packed_inputs(task, config)
    given = [None if a is None else a.copy() for a in arrays]
    computed = [i for i, a in enumerate(given) if a is not None and task.known(i) is None]
    for index in computed:
        given[index].reshape(-1).view(np.uint8)[...] = 0xFF  # type: ignore[union-attr]
    outputs = [poisoned(t) for t in task.outputs if isinstance(t, TensorType)]
    if inplace is not None:
        target = given[inplace]
        assert target is not None
        outputs[0] = target
    workspace = poisoned(TensorType(np.dtype(np.uint8), (kernel.workspace_nbytes(task, config),)))
    buffers = Buffers(
        tuple(None if index in packed else a for index, a in enumerate(given)),
        tuple(outputs),
        workspace,
        kernel.pack(task, config),
    )
    work = kernel.bind(task, config, buffers)
    for index in computed:
        given[index][...] = arrays[index]  # type: ignore[index]
    for _ in range(1 if inplace is not None else 2):
        workspace[...] = 0xFF
        if inplace is None:
            for output in outputs:
                output.reshape(-1).view(np.uint8)[...] = 0xFF
        with np.errstate(all="ignore"):
            work()
    for index, (before, after) in enumerate(zip(arrays, given, strict=True)):
        unchanged = index == inplace or before is None or np.array_equal(before, after)  # type: ignore[arg-type]
        assert unchanged, f"{kernel.scheme} wrote to input {index}"
    return outputs


def widened(arrays: Sequence[Array | None]) -> list[Array | None]:
    """The inputs in float64, for the reference."""
    return [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]


def check(
    op: Op,
    arrays: Sequence[Array | None],
    constants: Sequence[int] = (),
    tolerance: float = 3e-6,
    grains: Sequence[int] = GRAINS,
    only: Callable[[str], bool] = lambda scheme: True,
) -> set[str]:
    """Compare every scheme with the operator's reference in float64; returns the schemes met."""
    task = task_of(op, arrays, constants)
    expected = op.reference(np, *widened(arrays))
    met = set()
    for grain in grains:
        for kernel, config in kernels(task, grain):
            if not only(kernel.scheme):
                continue
            met.add(kernel.scheme)
            outputs = run(kernel, config, task, arrays)
            for output, wanted in zip(outputs, expected, strict=True):
                allowed = tolerance + kernel.max_error(task, config)
                worst = error(output, wanted)
                assert worst <= allowed, f"{kernel.scheme} {dict(config)}: {worst:.1e}"
    return met


def error(output: Array, expected: Array) -> float:
    """max|difference| / max|expected|; NaN counts as infinite."""
    if not expected.size:
        return 0.0
    difference = np.abs(output.astype(expected.dtype) - expected)
    scale = max(float(np.max(np.abs(expected))), 1e-30)
    worst = float(np.max(difference))
    return worst / scale if np.isfinite(worst) else float("inf")
