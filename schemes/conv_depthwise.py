"""Depthwise convolution: one filter per channel, multiplied tap by tap where the data lie."""

from __future__ import annotations

import math
from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task, Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv, tap_slices
from mnnpy.schemes.geometry import ConvGeometry, aligned, blocks, in_order, take


class ConvDepthwise(Scheme):
    """y[k] += w[k, tap] * x[channel of k, shifted by tap].

    With stride one, the padded image is read as one flat row per channel: a tap is an offset, and
    the few columns between rows are computed and left out at the end.
    """

    name = "conv_depthwise"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        return None if g.group == g.c else f"{g.group} groups of {g.c} channels: not depthwise"

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        grid = math.prod(g.padded) if self._flat(g) else g.pixels
        return Work(g.n * g.k * g.taps * grid, task.nbytes, g.n * (2 * g.taps + 2))

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        padded = aligned(g.k * math.prod(g.padded) * g.dtype.itemsize)
        return 3 * padded

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        multiplier = g.k // g.group
        weights = w.reshape(g.k, *g.kernel)
        runs: list[Run | None] = []
        grid_nbytes = 3 * math.prod(g.padded) * g.dtype.itemsize * multiplier
        for image in range(g.n):
            for part in blocks(g.c, grid_nbytes, buffers.grain_nbytes):
                outputs = slice(part.start * multiplier, part.stop * multiplier)
                y = buffers.outputs[0][image, outputs]
                source = x[image, part]
                runs.append(self._convolve(xp, g, source, weights[outputs], y, buffers.workspace))
                runs.append(buffers.finish((image, outputs)))
        return in_order(runs)

    @staticmethod
    def _flat(g: ConvGeometry) -> bool:
        return max(g.strides) == 1 and len(g.spatial) == 2

    def _convolve(
        self, xp: ArrayModule, g: ConvGeometry, source: Array, w: Array, y: Array, workspace: Array
    ) -> Run:
        channels, multiplier = len(w), g.k // g.group
        padded, offset = take(workspace, 0, (channels, *g.padded), g.dtype)
        inner = padded[
            (
                slice(None),
                *(slice(lo, lo + size) for lo, size in zip(g.begin, g.spatial, strict=True)),
            )
        ]
        taps = list(cartesian(*map(range, g.kernel)))
        if self._flat(g):
            width, size = g.padded[1], math.prod(g.padded)
            span = (g.output[0] - 1) * width + g.output[1]
            flat = padded.reshape(channels, size)
            sums, offset = take(workspace, offset, (channels, size), g.dtype)
            part, _ = take(workspace, offset, (channels, span), g.dtype)
            total = sums[:, :span]
            starts = [t * g.dilations[0] * width + u * g.dilations[1] for t, u in taps]
            views = [flat[:, start : start + span] for start in starts]
            result = sums.reshape(channels, *g.padded)[:, : g.output[0], : g.output[1]]
        else:
            views = [padded[(slice(None), *tap_slices(g.window, tap))] for tap in taps]
            part, _ = take(workspace, offset, (channels, *g.output), g.dtype)
            total = result = y
        factors = [w[(slice(None), *tap)].reshape(-1, *(1,) * (total.ndim - 1)) for tap in taps]

        def convolve() -> None:
            if g.needs_padding:
                padded.fill(0)
            inner[...] = source if multiplier == 1 else xp.repeat(source, multiplier, axis=0)
            xp.multiply(views[0], factors[0], out=total)
            for view, factor in zip(views[1:], factors[1:], strict=True):
                xp.multiply(view, factor, out=part)
                xp.add(total, part, out=total)
            if result is not y:
                y[...] = result

        return convolve
