"""Transposed convolution as a matrix product followed by a scatter-add of its taps (col2im)."""

from __future__ import annotations

import math
from functools import partial
from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import ConvTranspose
from mnnpy.runtime.ops.shape_math import Window
from mnnpy.schemes.geometry import aligned, in_order, take


class ConvTransposed(Scheme):
    """columns = W' x[n]; every tap's rows are added where that tap of the output lies."""

    name = "conv_transposed"
    operators = (ConvTranspose,)
    finishes = True

    def work(self, task: Task, config: Config) -> Work:
        n, columns, full = self._sizes(task)
        itemsize = task.output().dtype.itemsize
        return Work(task.macs, task.nbytes + n * (2 * columns + 3 * full) * itemsize, n)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        _, columns, full = self._sizes(task)
        itemsize = task.output().dtype.itemsize
        return aligned(columns * itemsize) + aligned(full * itemsize)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        op, y = task.op, buffers.outputs[0]
        x, w = buffers.inputs[:2]
        assert isinstance(op, ConvTranspose) and x is not None and w is not None
        window, full = self._window(task)
        n, c, *spatial = x.shape
        k, group, pixels = y.shape[1], op.group, math.prod(spatial)
        rows = w.reshape(group, c // group, -1).swapaxes(1, 2)
        columns, offset = take(buffers.workspace, 0, (group, rows.shape[1], pixels), x.dtype)
        spread, _ = take(buffers.workspace, offset, (k, *full), x.dtype)
        by_tap = columns.reshape(k, *window.kernel, *spatial)
        added = [
            (
                spread[(slice(None), *self._places(window, tap, spatial))],
                by_tap[(slice(None), *tap)],
            )
            for tap in cartesian(*map(range, window.kernel))
        ]
        crop = tuple(
            slice(int(lo), int(lo) + size)
            for lo, size in zip(window.begin, y.shape[2:], strict=True)
        )
        cropped = spread[(slice(None), *crop)]

        def transpose(source: Array, target: Array) -> None:
            xp.matmul(rows, source, out=columns)
            spread.fill(0)
            for place, part in added:
                xp.add(place, part, out=place)
            target[...] = cropped

        runs: list[Run | None] = []
        for image in range(n):
            source = x[image].reshape(group, c // group, pixels)
            runs.extend((partial(transpose, source, y[image]), buffers.finish((image,))))
        return in_order(runs)

    def reject(self, task: Task) -> str | None:
        window, _ = self._window(task)
        if any(int(lo) < 0 for lo in window.begin):
            return f"negative padding {window.begin}"
        return None

    @staticmethod
    def _window(task: Task) -> tuple[Window, tuple[int, ...]]:
        op, x, w = task.op, task.tensor(0), task.tensor(1)
        assert isinstance(op, ConvTranspose)
        spatial = tuple(int(dim) for dim in x.shape[2:])
        window = op.window(spatial, tuple(int(dim) for dim in w.shape[2:]))
        full = tuple(
            max((size - 1) * stride + extent, int(lo) + int(out))
            for size, stride, extent, lo, out in zip(
                spatial, window.strides, window.extent, window.begin, window.output, strict=True
            )
        )
        return window, full

    @staticmethod
    def _places(window: Window, tap: tuple[int, ...], spatial: list[int]) -> tuple[slice, ...]:
        return tuple(
            slice(t * d, t * d + (size - 1) * stride + 1, stride)
            for t, d, stride, size in zip(
                tap, window.dilations, window.strides, spatial, strict=True
            )
        )

    def _sizes(self, task: Task) -> tuple[int, int, int]:
        """Images, elements of the columns of one image, elements of its uncropped output."""
        window, full = self._window(task)
        x, k = task.tensor(0), int(task.output().shape[1])
        pixels = math.prod(int(dim) for dim in x.shape[2:])
        return int(x.shape[0]), k * math.prod(window.kernel) * pixels, k * math.prod(full)
