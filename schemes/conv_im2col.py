"""Convolution as im2col and a matrix product (Chellapilla et al., 2006)."""

from __future__ import annotations

from functools import partial
from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv, tap_slices
from mnnpy.schemes.geometry import (
    ConvGeometry,
    aligned,
    blocks,
    flat_rows,
    in_order,
    padded_images,
    row_count,
    take,
)


class ConvIm2col(Scheme):
    """Every kernel tap of every channel becomes a row of a (c * taps, pixels) matrix."""

    name = "conv_im2col"
    operators = (Conv,)
    finishes = True

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        g = ConvGeometry.of(task)
        row_nbytes = (g.c * g.taps + g.k) * g.row_pixels * g.dtype.itemsize
        return ((("rows", row_count(g, row_nbytes, grain_nbytes)),),)

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        columns = g.c * g.taps * g.pixels * g.dtype.itemsize
        return Work(task.macs, task.nbytes + 2 * g.n * columns, g.n * (g.group + g.taps))

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        pixels = min(int(dict(config)["rows"]), g.output[0]) * g.row_pixels
        return aligned(g.padded_nbytes) + g.c * g.taps * pixels * g.dtype.itemsize

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        source, filling = padded_images(g, x, buffers.workspace)
        weights = w.reshape(g.group, g.k // g.group, -1)
        y = buffers.outputs[0]
        runs: list[Run | None] = []
        for image in range(g.n):
            runs.append(filling(image))
            seen = source[image if len(source) > 1 else 0]
            for rows in blocks(g.output[0], int(dict(config)["rows"])):
                columns, _ = take(
                    buffers.workspace,
                    aligned(g.padded_nbytes),
                    (g.c, *g.kernel, rows.stop - rows.start, *g.output[1:]),
                    g.dtype,
                )
                runs.append(self._gather(g, seen, columns, rows))
                matrices = columns.reshape(g.group, weights.shape[2], -1)
                out = flat_rows(y[image], rows).reshape(g.group, -1, matrices.shape[2])
                runs.append(partial(xp.matmul, weights, matrices, out=out))
                runs.append(buffers.finish((image, slice(None), rows)))
        return in_order(runs)

    @staticmethod
    def _gather(g: ConvGeometry, image: Array, columns: Array, rows: slice) -> Run:
        copies = []
        for tap in cartesian(*map(range, g.kernel)):
            first, *rest = tap_slices(g.window, tap)
            stride = g.strides[0]
            start = first.start + rows.start * stride
            stop = first.start + (rows.stop - 1) * stride + 1
            seen = image[(slice(None), slice(start, stop, stride), *rest)]
            copies.append((columns[(slice(None), *tap)], seen))

        def gather() -> None:
            for target, seen in copies:
                target[...] = seen

        return gather
