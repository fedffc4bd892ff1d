"""Convolution as im2col and a matrix product (Chellapilla et al., 2006)."""

from __future__ import annotations

from functools import partial
from itertools import product as cartesian

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task, Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv, tap_slices
from mnnpy.schemes.geometry import (
    ConvGeometry,
    aligned,
    blocks,
    in_order,
    padded_images,
    take,
)


class ConvIm2col(Scheme):
    """Every kernel tap of every channel becomes a row of a (c * taps, pixels) matrix."""

    name = "conv_im2col"
    operators = (Conv,)
    finishes = True

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        return Work(task.macs, task.nbytes + 2 * g.n * self._columns_nbytes(g), g.n * g.group)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        return aligned(g.padded_nbytes) + self._columns_nbytes(g)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        source, filling = padded_images(g, x, buffers.workspace)
        columns, _ = take(
            buffers.workspace,
            aligned(g.padded_nbytes),
            (g.c, *g.kernel, *g.output),
            g.dtype,
        )
        matrices = columns.reshape(g.group, -1, g.pixels)
        rows = w.reshape(g.group, g.k // g.group, -1)
        y = buffers.outputs[0].reshape(g.n, g.group, g.k // g.group, g.pixels)
        runs: list[Run | None] = []
        for image in range(g.n):
            runs.append(filling(image))
            runs.append(self._gather(g, source[image if len(source) > 1 else 0], columns))
            for group in range(g.group):
                for part in blocks(g.k // g.group, g.pixels * g.dtype.itemsize, buffers.grain_nbytes):
                    out = y[image, group, part]
                    runs.append(partial(xp.matmul, rows[group, part], matrices[group], out=out))
                    first = group * (g.k // g.group)
                    runs.append(
                        buffers.finish((image, slice(first + part.start, first + part.stop)))
                    )
        return in_order(runs)

    @staticmethod
    def _gather(g: ConvGeometry, image: Array, columns: Array) -> Run:
        copies = [
            (columns[(slice(None), *tap)], image[(slice(None), *tap_slices(g.window, tap))])
            for tap in cartesian(*map(range, g.kernel))
        ]

        def gather() -> None:
            for target, seen in copies:
                target[...] = seen

        return gather

    @staticmethod
    def _columns_nbytes(g: ConvGeometry) -> int:
        return g.c * g.taps * g.pixels * np.dtype(g.dtype).itemsize
