"""Convolution tap by tap: each kernel position is a 1x1 convolution of a shifted input."""

from __future__ import annotations

from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task, Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv, tap_slices
from mnnpy.schemes.geometry import ConvGeometry, aligned, in_order, padded_images, take


class ConvSlidingWindow(Scheme):
    """Sum over taps of W[tap] x[shifted]; needs room for one shifted input and one product."""

    name = "conv_sliding_window"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        if g.taps == 1 and max(g.strides) == 1 and not g.needs_padding:
            return "one tap: there is nothing to slide"
        return None if task.known(1) is not None else "the weights are computed by the network"

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        shifted = (2 * g.c + 3 * g.k) * g.pixels * g.dtype.itemsize
        return Work(task.macs, task.nbytes + g.n * g.taps * shifted, 3 * g.n * g.taps)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        shifted = aligned(g.c * g.pixels * g.dtype.itemsize)
        return aligned(g.padded_nbytes) + shifted + aligned(g.k * g.pixels * g.dtype.itemsize)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return (1,)

    def pack(self, xp: ArrayModule, task: Task, config: Config) -> tuple[Array, ...]:
        """Weights as one (group, k / group, c / group) array per tap."""
        g = ConvGeometry.of(task)
        grouped = xp.asarray(task.known(1)).reshape(g.group, g.k // g.group, -1, *g.kernel)
        taps = cartesian(*map(range, g.kernel))
        return tuple(xp.ascontiguousarray(grouped[(..., *tap)]) for tap in taps)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x = buffers.inputs[0]
        assert x is not None
        source, filling = padded_images(g, x, buffers.workspace)
        offset = aligned(g.padded_nbytes)
        shifted, offset = take(buffers.workspace, offset, (g.c, *g.output), g.dtype)
        part, _ = take(buffers.workspace, offset, (g.group, g.k // g.group, g.pixels), g.dtype)
        columns = shifted.reshape(g.group, g.c // g.group, g.pixels)
        places = [tap_slices(g.window, tap) for tap in cartesian(*map(range, g.kernel))]
        taps = list(zip(buffers.packed, places, strict=True))
        y = buffers.outputs[0].reshape(g.n, g.group, g.k // g.group, g.pixels)
        runs: list[Run | None] = []
        for image in range(g.n):
            runs.append(filling(image))
            seen = source[image if len(source) > 1 else 0]

            def slide(target=y[image], seen=seen) -> None:  # type: ignore[no-untyped-def]
                for index, (weights, place) in enumerate(taps):
                    shifted[...] = seen[(slice(None), *place)]
                    xp.matmul(weights, columns, out=part if index else target)
                    if index:
                        target += part

            runs.append(slide)
            runs.append(buffers.finish((image,)))
        return in_order(runs)
