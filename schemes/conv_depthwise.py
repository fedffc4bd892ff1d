"""Depthwise convolution: one filter per channel, multiplied tap by tap where the data lie."""

from __future__ import annotations

import math
from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import ConvGeometry, aligned, blocks, in_order, take


class ConvDepthwise(Scheme):
    """y[k] += w[k, tap] * x[channel of k, shifted by tap].

    The padded image is split into phases, one per position within a stride, so that every tap
    reads a run of neighbours. A phase is read as one flat row per channel: a tap is an offset into
    it, and the few columns between rows are computed and left out at the end.
    """

    name = "conv_depthwise"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        return None if g.group == g.c else f"{g.group} groups of {g.c} channels: not depthwise"

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        g = ConvGeometry.of(task)
        channel_nbytes = 3 * g.k // g.c * self._phase_elements(g) * g.dtype.itemsize
        return ((("channels", max(1, min(g.c, grain_nbytes // channel_nbytes))),),)

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        moved = 2 * g.n * g.k * self._phase_elements(g) * math.prod(g.strides) * g.dtype.itemsize
        macs = g.n * g.k * g.taps * self._phase_elements(g)
        return Work(macs, task.nbytes + moved, g.n * (2 * g.taps + 2))

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        made = int(dict(config)["channels"]) * g.k // g.c
        phase = aligned(made * self._phase_elements(g) * g.dtype.itemsize)
        return phase * (math.prod(g.strides) + 2) + 64

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        multiplier = g.k // g.group
        weights = w.reshape(g.k, *g.kernel)
        runs: list[Run | None] = []
        for image in range(g.n):
            for part in blocks(g.c, int(dict(config)["channels"])):
                made = slice(part.start * multiplier, part.stop * multiplier)
                y = buffers.outputs[0][image, made]
                runs.append(
                    self._convolve(xp, g, x[image, part], weights[made], y, buffers.workspace)
                )
                runs.append(buffers.finish((image, made)))
        return in_order(runs)

    @staticmethod
    def _grid(g: ConvGeometry) -> tuple[int, ...]:
        """Spatial shape of one phase."""
        return tuple(-(-size // s) for size, s in zip(g.padded, g.strides, strict=True))

    def _phase_elements(self, g: ConvGeometry) -> int:
        return math.prod(self._grid(g))

    def _convolve(
        self, xp: ArrayModule, g: ConvGeometry, source: Array, w: Array, y: Array, workspace: Array
    ) -> Run:
        channels, grid = len(w), self._grid(g)
        steps = tuple(math.prod(grid[axis + 1 :]) for axis in range(len(grid)))
        size = math.prod(grid)
        span = 1 + sum((count - 1) * step for count, step in zip(g.output, steps, strict=True))
        phases, offset = take(workspace, 0, (*g.strides, channels, size), g.dtype)
        sums, offset = take(workspace, offset, (channels, size), g.dtype)
        part, _ = take(workspace, offset, (channels, span), g.dtype)
        total = sums[:, :span]
        result = sums.reshape(channels, *grid)[(slice(None), *(slice(count) for count in g.output))]
        taps = list(cartesian(*map(range, g.kernel)))
        views, factors = [], []
        for tap in taps:
            places = [t * d for t, d in zip(tap, g.dilations, strict=True)]
            phase = tuple(place % s for place, s in zip(places, g.strides, strict=True))
            start = sum(
                place // s * step for place, s, step in zip(places, g.strides, steps, strict=True)
            )
            views.append(phases[phase][:, start : start + span])
            factors.append(w[(slice(None), *tap)].reshape(-1, 1))
        copies = self._phase_copies(g, source, phases)
        clear = g.needs_padding or any(
            size % s for size, s in zip(g.spatial, g.strides, strict=True)
        )

        def convolve() -> None:
            if clear:
                phases.fill(0)
            for target, seen in copies:
                target[...] = seen
            xp.multiply(views[0], factors[0], out=total)
            for view, factor in zip(views[1:], factors[1:], strict=True):
                xp.multiply(view, factor, out=part)
                xp.add(total, part, out=total)
            y[...] = result

        return convolve

    def _phase_copies(
        self, g: ConvGeometry, source: Array, phases: Array
    ) -> list[tuple[Array, Array]]:
        """(place inside a phase, the pixels of the source that belong there).

        Places are (channels of the source, outputs per channel, *spatial); pixels are broadcast.
        """
        grid = self._grid(g)
        copies = []
        for phase in cartesian(*map(range, g.strides)):
            firsts = [-(lo - p) % s for p, lo, s in zip(phase, g.begin, g.strides, strict=True)]
            seen = source[
                (slice(None), *(slice(f, None, s) for f, s in zip(firsts, g.strides, strict=True)))
            ]
            starts = [
                (first + lo) // s for first, lo, s in zip(firsts, g.begin, g.strides, strict=True)
            ]
            places = tuple(
                slice(start, start + count)
                for start, count in zip(starts, seen.shape[1:], strict=True)
            )
            by_source = phases[phase].reshape(len(source), -1, *grid)
            target = by_source[(slice(None), slice(None), *places)]
            counts = target.shape[2:]
            copies.append((target, seen[(slice(None), None, *(slice(count) for count in counts))]))
        return copies
