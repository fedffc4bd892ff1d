"""Calibration: a short suite of tasks per scheme, timed here, and coefficients fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mnnpy.runtime.contracts import Backend, Kernel, Task
from mnnpy.runtime.devices import Coefficients, Device, Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value
from mnnpy.runtime.measuring import Stopwatch, random_array
from mnnpy.runtime.ops.activation import Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.fused import Copy
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import (
    BatchNormalization,
    InstanceNormalization,
    LayerNormalization,
)
from mnnpy.runtime.ops.pooling import AveragePool, GlobalAveragePool, MaxPool
from mnnpy.runtime.ops.reduction import Softmax
from mnnpy.runtime.ops.resize import Resize
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import Concat

_CONVOLUTIONS = (
    # channels, size, filters, kernel, stride, group
    (3, 224, 32, 3, 2, 1),
    (3, 224, 64, 7, 2, 1),
    (16, 112, 96, 1, 1, 1),
    (144, 28, 32, 1, 1, 1),
    (192, 14, 64, 1, 1, 1),
    (512, 14, 512, 1, 1, 1),
    (960, 7, 320, 1, 1, 1),
    (64, 56, 64, 3, 1, 1),
    (128, 28, 128, 3, 1, 1),
    (256, 14, 256, 3, 1, 1),
    (512, 7, 512, 3, 1, 1),
    (16, 32, 16, 3, 1, 1),
    (64, 56, 128, 3, 2, 1),
    (256, 28, 256, 3, 2, 1),
    (32, 112, 32, 3, 1, 32),
    (144, 56, 144, 3, 1, 144),
    (384, 14, 384, 3, 1, 384),
    (960, 7, 960, 3, 1, 960),
    (96, 112, 96, 3, 2, 96),
    (576, 14, 576, 3, 2, 576),
    (64, 28, 64, 3, 1, 8),
    (4, 8, 8, 3, 1, 1),
    (8, 8, 8, 1, 1, 1),
    (8, 8, 8, 3, 1, 8),
)
_PRODUCTS = (
    (4, 16, 16),
    (1, 1280, 1000),
    (1, 4096, 4096),
    (64, 64, 64),
    (128, 768, 768),
    (128, 768, 3072),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)
_CLOCK_NOISE = 3e-6
"""Seconds: below this, what a kernel seems to take says little, and weighs little in the fit."""

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 4_000_000)


def calibrate(
    backend: Backend, progress: Callable[[str, int, int], None] | None = None
) -> dict[str, Coefficients]:
    """Fit every scheme's coefficients on this machine.

    Parameters
    ----------
    progress : called with (scheme, done, total) before each measurement.

    Returns
    -------
    Coefficients by scheme name; what no task of the suite exercises stays as the device says it.
    """
    device = backend.describe()
    stopwatch = Stopwatch(threads=1)
    measured: dict[str, list[tuple[Work, float]]] = {}
    todo = [
        (kernel, task, config)
        for task in suite()
        for kernel in _worth_measuring(backend, device, task)
        for config in kernel.configs(task, device)
    ]
    for done, (kernel, task, config) in enumerate(todo):
        if progress is not None:
            progress(kernel.scheme, done, len(todo))
        seconds = stopwatch.time(backend, kernel, task, config)
        measured.setdefault(kernel.scheme, []).append((kernel.work(task, config), seconds))
    fitted = {scheme: fit(samples) for scheme, samples in sorted(measured.items())}
    fitted["view"] = Coefficients(0.0, 0.0, 0.0)
    for scheme, like in (("copy", "concat"), ("*", "reference")):
        if like in fitted:
            fitted.setdefault(scheme, fitted[like])
    return {**device.coefficients, **fitted}


def _worth_measuring(backend: Backend, device: Device, task: Task) -> list[Kernel]:
    """Kernels that can run the task; those of last resort only where nothing else can."""
    kernels = [k for k in backend.kernels(task.op) if k.reject(task, device) is None]
    return [kernel for kernel in kernels if not kernel.last_resort] or kernels


def fit(samples: Sequence[tuple[Work, float]]) -> Coefficients:
    """Non-negative coefficients of least relative error.

    Three columns allow trying every subset of them: the best non-negative solution is among the
    unconstrained solutions on subsets.
    """
    rows = np.array([[w.macs, w.nbytes, w.launches] for w, _ in samples], dtype=np.float64)
    seconds = np.array([s for _, s in samples])
    weights = 1 / (seconds + _CLOCK_NOISE)
    weighted = rows * weights[:, None]
    scale = np.maximum(np.abs(weighted).max(axis=0), 1e-300)
    best: tuple[float, NDArray[np.float64]] = (np.inf, np.zeros(3))
    for count in (1, 2, 3):
        for columns in combinations(range(3), count):
            part = weighted[:, columns] / scale[list(columns)]
            solution = np.linalg.lstsq(part, seconds * weights, rcond=None)[0]
            if (solution < 0).any():
                continue
            error = float(((part @ solution - seconds * weights) ** 2).sum())
            if error < best[0]:
                full = np.zeros(3)
                full[list(columns)] = solution / scale[list(columns)]
                best = (error, full)
    return Coefficients(*map(float, best[1]))


def suite() -> Iterator[Task]:
    """Tasks that exercise every scheme at the sizes that networks have."""
    for channels, size, filters, kernel, stride, group in _CONVOLUTIONS:
        pad = (kernel // 2,) * 4
        conv = Conv(strides=(stride, stride), pads=pad, group=group)
        yield _task(
            conv, (1, channels, size, size), constant=(filters, channels // group, kernel, kernel)
        )
    for channels, size in ((64, 28), (256, 14)):
        up = ConvTranspose(strides=(2, 2))
        yield _task(up, (1, channels, size, size), constant=(channels, channels // 2, 2, 2))
    for m, k, n in _PRODUCTS:
        yield _task(Gemm(), (m, k), constant=(k, n))
    yield _task(MatMul(), (12, 128, 64), (12, 64, 128))
    for pool in (MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), AveragePool((3, 3), (1, 1), (1, 1, 1, 1))):
        for channels, size in ((64, 112), (128, 28), (512, 14)):
            yield _task(pool, (1, channels, size, size))
    for count in _SIZES:
        shape = (1, count // 100, 10, 10)
        yield _task(Copy(), shape)
        yield _task(Relu(), shape)
        yield _task(Add(), shape, shape)
        yield _task(Sigmoid(), shape)
        yield _task(Concat(axis=1), shape, shape)
        yield _task(GlobalAveragePool(), shape)
        yield _task(Transpose((0, 2, 3, 1)), shape)
        yield _task(Softmax(axis=1), shape)
        yield _task(Softmax(), (count // 100, 100))
        yield _task(LayerNormalization(), (count // 100, 100), constant=(100,))
        ones = np.ones(count // 100, dtype=np.float32)
        yield _task(InstanceNormalization(), shape, known=(ones, ones))
        yield _task(BatchNormalization(), shape, known=(ones,) * 4)
        scales = np.array([1, 1, 2, 2], dtype=np.float32)
        for mode in ("nearest", "linear"):
            yield _task(Resize(mode), shape, known=(np.zeros(0, dtype=np.float32), scales))


def _task(
    op: Op,
    *shapes: tuple[int, ...],
    constant: tuple[int, ...] | None = None,
    known: Sequence[NDArray[np.float32]] = (),
) -> Task:
    """The first output of an operator on tensors, a random constant, or constants that matter."""
    inputs = [Value(TensorType(FLOAT32, shape)) for shape in shapes]
    if constant is not None:
        tensor = TensorType(FLOAT32, constant)
        rng = np.random.default_rng(0)
        inputs.append(Value(tensor, random_array(constant, tensor, rng)))
    inputs += [Value(TensorType(FLOAT32, array.shape), array) for array in known]
    return Task(op, tuple(inputs), op.infer(*inputs)[:1])
