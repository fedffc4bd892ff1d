"""Pooling one axis after the other: a window's maximum or sum is one of rows, then of columns."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import FLOAT32, FLOAT64, Array, ArrayModule
from mnnpy.runtime.ops.numeric import lowest
from mnnpy.runtime.ops.pooling import AveragePool, MaxPool
from mnnpy.runtime.ops.shape_math import Window
from mnnpy.schemes.geometry import aligned, blocks, in_order, take


class PoolSeparable(Scheme):
    """r + s operations per output instead of r * s, a few channels at a time."""

    name = "pool_separable"
    operators = (MaxPool, AveragePool)

    def reject(self, task: Task) -> str | None:
        if len(task.outputs) > 1:
            return "does not find where the maxima lie"
        if task.output().dtype not in (FLOAT32, FLOAT64):
            return f"{task.output().dtype} is not float32 or float64"
        return None

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        channels, itemsize = int(task.tensor(0).shape[1]), task.output().dtype.itemsize
        plane_nbytes = 2 * sum(map(math.prod, self._shapes(task))) * itemsize
        return ((("channels", max(1, min(channels, grain_nbytes // max(plane_nbytes, 1)))),),)

    def work(self, task: Task, config: Config) -> Work:
        window, shapes = _window(task), self._shapes(task)
        planes = math.prod(int(dim) for dim in task.tensor(0).shape[:2])
        passes = sum(k * math.prod(s) for k, s in zip(window.kernel, shapes[1:], strict=True))
        itemsize = task.output().dtype.itemsize
        moved = planes * (passes + 2 * math.prod(shapes[0])) * itemsize
        return Work(0, moved, sum(window.kernel) + 2)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        channels, itemsize = int(dict(config)["channels"]), task.output().dtype.itemsize
        return sum(aligned(channels * math.prod(s) * itemsize) for s in self._shapes(task)[:-1])

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        shapes = self._shapes(task)
        runs: list[Run | None] = []
        for image in range(x.shape[0]):
            for part in blocks(x.shape[1], int(dict(config)["channels"])):
                stages, offset = [], 0
                for shape in shapes[:-1]:
                    size = (part.stop - part.start, *shape)
                    stage, offset = take(buffers.workspace, offset, size, x.dtype)
                    stages.append(stage)
                runs.append(self._pool(xp, task, x[image, part], [*stages, y[image, part]]))
        return in_order(runs)

    @staticmethod
    def _pool(xp: ArrayModule, task: Task, source: Array, stages: list[Array]) -> Run:
        window = _window(task)
        maximum = isinstance(task.op, MaxPool)
        fill = float(lowest(source.dtype)) if maximum else 0.0
        combine = xp.maximum if maximum else xp.add
        padded = stages[0]
        inner = padded[
            (
                slice(None),
                *(
                    slice(int(lo), int(lo) + size)
                    for lo, size in zip(window.begin, source.shape[1:], strict=True)
                ),
            )
        ]
        needs_fill = inner.shape != padded.shape
        passes = [
            (target, _taps(seen, window, axis, axis + 1))
            for axis, (seen, target) in enumerate(pairwise(stages))
        ]
        share = None if maximum else xp.asarray(_share(task, window), dtype=source.dtype)
        result = stages[-1]

        def pool() -> None:
            if needs_fill:
                padded.fill(fill)
            inner[...] = source
            for target, (first, *others) in passes:
                if others:
                    combine(first, others[0], out=target)
                else:
                    target[...] = first
                for other in others[1:]:
                    combine(target, other, out=target)
            if share is not None:
                xp.multiply(result, share, out=result)

        return pool

    @staticmethod
    def _shapes(task: Task) -> list[tuple[int, ...]]:
        """Spatial shape of the padded input, and after each axis."""
        window = _window(task)
        spatial = [int(dim) for dim in task.tensor(0).shape[2:]]
        shape = [
            max(int(lo) + size + int(hi), (int(out) - 1) * stride + extent)
            for lo, size, hi, out, stride, extent in zip(
                window.begin,
                spatial,
                window.end,
                window.output,
                window.strides,
                window.extent,
                strict=True,
            )
        ]
        shapes = [tuple(shape)]
        for axis, out in enumerate(window.output):
            shape[axis] = int(out)
            shapes.append(tuple(shape))
        return shapes


def _window(task: Task) -> Window:
    assert isinstance(task.op, MaxPool | AveragePool)
    return task.op.window(task.tensor(0).shape[2:])


def _taps(seen: Array, window: Window, axis: int, array_axis: int) -> list[Array]:
    """What each tap along a spatial axis reads, the axis being ``array_axis`` of ``seen``."""
    step, count = window.strides[axis], int(window.output[axis])
    before = (slice(None),) * array_axis
    starts = [tap * window.dilations[axis] for tap in range(window.kernel[axis])]
    return [seen[(*before, slice(s, s + (count - 1) * step + 1, step))] for s in starts]


def _share(task: Task, window: Window) -> Array:
    """One over the number of elements that count in each window."""
    assert isinstance(task.op, AveragePool)
    counts = np.ones((), dtype=np.float64)
    for axis, size in enumerate(task.tensor(0).shape[2:]):
        lo, hi = int(window.begin[axis]), int(window.end[axis])
        line = np.full(lo + int(size) + hi, float(task.op.count_include_pad))
        line[lo : lo + int(size)] = 1
        reach = (int(window.output[axis]) - 1) * window.strides[axis] + window.extent[axis]
        line = np.pad(line, (0, max(reach - len(line), 0)))
        counts = np.multiply.outer(counts, sum(_taps(line, window, axis, 0)))
    return 1 / counts
