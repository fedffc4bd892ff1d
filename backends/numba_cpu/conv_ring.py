"""A dense convolution and the depthwise one behind it, through a ring of rows in near cache.

The ring holds as many rows as a window is high; each is computed when a window first reaches it.
Rows are counted in the padded picture: row t lies in place t modulo the ring's height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_chain import Link
from mnnpy.backends.numba_cpu.conv_depthwise import DepthwiseKernel
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source, planar_source
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.graph.types import Array
from mnnpy.schemes.geometry import ConvGeometry

_STACK_NBYTES = 1 << 19
"""Rows that are kept, on the stack: half of a cache of a megabyte."""

_WEIGHTS_NBYTES = 1 << 19
"""Weights of dense convolutions, which every row passes; the other half."""

_AGAIN = 6
"""A thread computes at most one in so many multiply-adds a second time: of rows above its share."""


def ring_of(g: ConvGeometry, lanes: int) -> Blocked:
    """The rows that one window of a depthwise convolution covers, and the columns of zeros."""
    columns = g.padded[1] - g.spatial[1]
    return Blocked(1, g.c, g.window.extent[0], g.spatial[1], lanes, 0, columns)


def row_behind(g: ConvGeometry, lanes: int) -> Blocked:
    """A row of what a depthwise convolution makes."""
    return Blocked(1, g.c, 1, g.output[1], lanes, 0)


def unfit_ring(
    dense: Sequence[ConvGeometry], g: ConvGeometry, lanes: int, threads: int
) -> str | None:
    """Why a depthwise convolution behind the first of the dense ones should not read from a ring.

    Few rows are refused to a single thread, too: starting the ring would be most of the work.
    """
    if min(*g.begin, *g.end) < 0:
        return "padding cuts rows or columns off"
    if sum(4 * d.c * d.taps * d.k for d in dense) > _WEIGHTS_NBYTES:
        return "the weights do not stay in a near cache"
    if 4 * (ring_of(g, lanes).image + row_behind(g, lanes).image) > _STACK_NBYTES:
        return "rows overflow the stack"
    macs = [d.pixels * d.c * d.taps * d.k for d in dense]
    again = macs[0] // g.spatial[0] * (g.window.extent[0] - g.strides[0])
    if again * _AGAIN * max(2, threads) > sum(macs) + g.pixels * g.c * g.taps:
        return "few rows for windows as high and so many threads"
    return None


@dataclass(frozen=True, slots=True)
class RingKernel:
    """Everything that the code of both convolutions depends on."""

    dense: DenseKernel
    depthwise: DepthwiseKernel

    @staticmethod
    def of(
        dense: Link, x: Array, dense_rows: int, depthwise: Link, y: Blocked, depthwise_rows: int
    ) -> RingKernel:
        """The kernel that reads ``x`` and writes rows of ``y``."""
        read, ring = dense.anchored.task.tensor(0), ring_of(depthwise.geometry, y.lanes)
        source = (
            planar_source(dense.geometry, x.shape)
            if x.ndim == read.rank
            else blocked_source(dense.geometry, Blocked.of(read, x))
        )
        return RingKernel(
            DenseKernel(source, ring, (), dense.epilogue, dense_rows, 1, True, "wide"),
            DepthwiseKernel(depthwise.geometry, ring, y, (), depthwise.epilogue, depthwise_rows),
        )

    def add_tiles(self, module: Module) -> None:
        """Add the functions that :meth:`put_rows` calls."""
        self.dense.add_tiles(module)

    def scratch(self, f: Function) -> Value:
        """The ring on the stack, with zeros before and behind every row."""
        ring, left = self.depthwise.x, self.depthwise.g.begin[1]
        memory, zero = f.scratch(ring.image), f.constant(0.0)

        def clear(row: Value) -> None:
            start = f.at(memory, f.mul(row, ring.row))
            for column in range(ring.margin):
                place = column if column < left else column + ring.w
                f.store_vector(zero, f.at(start, place * ring.lanes))

        f.loop(str(ring.blocks * ring.h), clear)
        return memory

    def put_rows(
        self,
        f: Function,
        place: tuple[Value, Value, Value],
        memory: Value,
        pointers: tuple[Value, Value, Value, Value, Value],
        target: Callable[[Value], Value],
    ) -> None:
        """One row of outputs of every channel block.

        Parameters
        ----------
        place : (image, row, fresh); fresh where the ring does not hold the row before.
        pointers : the input, then weights and bias of both convolutions.
        target : of a block, where its row starts.
        """
        g, ring = self.depthwise.g, self.depthwise.x
        (image, row, fresh), (x, w1, b1, w2, b2) = place, pointers
        first = f.mul(row, g.strides[0])
        unread = f.add(first, max(0, ring.h - g.strides[0]))
        start, end = f.select(fresh, "i64", first, unread), f.add(first, ring.h)
        slots = [f.divide(f.add(first, r * g.dilations[0]), ring.h)[1] for r in range(g.kernel[0])]

        def put_block(block: Value) -> None:
            def fill(t: Value) -> None:
                self._fill(f, (image, block, t), (x, w1, b1), memory)

            f.loop(end, fill, start=start)
            plane = f.at(memory, f.mul(block, ring.plane))
            rows = [f.at(plane, f.mul(slot, ring.row)) for slot in slots]
            self.depthwise.put_row(f, block, rows, (w2, b2), target(block))

        f.loop(str(ring.blocks), put_block)

    def _fill(
        self,
        f: Function,
        place: tuple[Value, Value, Value],
        pointers: tuple[Value, Value, Value],
        memory: Value,
    ) -> None:
        """A row of a channel block of the ring, for ``place`` (image, block, row).

        Outside the picture it is zeros: no bias reaches there.
        """
        g, ring, source = self.depthwise.g, self.depthwise.x, self.dense.source
        (image, block, t), (x, weights, bias) = place, pointers
        row = f.sub(t, g.begin[0])
        slot = f.at(memory, f.mul(f.divide(t, ring.h)[1], ring.row))
        slot = f.at(slot, g.begin[1] * ring.lanes)

        def compute() -> None:
            read = f.at(f.at(x, f.mul(image, source.image)), source.first)
            read = f.at(read, f.mul(row, source.row))
            self.dense.put_row(f, ("0", block, "0"), [read, weights, bias, slot])

        def clear() -> None:
            target, zero = f.at(slot, f.mul(block, ring.plane)), f.constant(0.0)
            f.loop(ring.w, lambda i: f.store_vector(zero, f.at(target, f.mul(i, ring.lanes))))

        f.when(f.compare("ult", row, g.spatial[0]), compute)
        f.when(f.compare("uge", row, g.spatial[0]), clear)


def begins_anew(f: Function, unit: Value, row: Value) -> Value:
    """Whether a range of units or a picture begins here."""
    return f.emit(f"or i1 {f.compare('eq', unit, '%begin')}, {f.compare('eq', row, 0)}")
