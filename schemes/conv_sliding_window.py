"""Convolution tap by tap: each kernel position is a 1x1 convolution of a shifted input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as cartesian

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
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
        y = buffers.outputs[0].reshape(g.n, g.group, g.k // g.group, g.pixels)
        taps = list(cartesian(*map(range, g.kernel)))
        runs: list[Run | None] = []
        for image in range(g.n):
            seen = source[image if len(source) > 1 else 0]
            views = [seen[(slice(None), *tap_slices(g.window, tap))] for tap in taps]
            runs.append(filling(image))
            runs.append(_slide(xp, views, buffers.packed, shifted, part, y[image]))
            runs.append(buffers.finish((image,)))
        return in_order(runs)


def _slide(
    xp: ArrayModule,
    views: Sequence[Array],
    weights: Sequence[Array],
    shifted: Array,
    part: Array,
    target: Array,
) -> Run:
    """target = the sum over taps of weights times view; each view is gathered in ``shifted``."""
    columns = shifted.reshape(len(target), -1, target.shape[-1])
    (first, *others), (first_weights, *other_weights) = views, weights
    rest = list(zip(others, other_weights, strict=True))

    def slide() -> None:
        shifted[...] = first
        xp.matmul(first_weights, columns, out=target)
        for view, matrix in rest:
            shifted[...] = view
            xp.matmul(matrix, columns, out=part)
            xp.add(target, part, out=target)

    return slide
