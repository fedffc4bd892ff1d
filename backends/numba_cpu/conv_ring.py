"""A dense convolution and what slides a window over its channels behind it, a depthwise convolution
or a maximum, through a ring of rows in near cache.

The ring holds as many rows as a window is high; each is computed when a window first reaches it.
Rows are counted in the padded picture: row t lies in place t modulo the ring's height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
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
    """The rows that one window covers, and the columns of padding."""
    columns = g.padded[1] - g.spatial[1]
    return Blocked(1, g.c, g.window.extent[0], g.spatial[1], lanes, 0, columns)


def row_behind(g: ConvGeometry, lanes: int) -> Blocked:
    """A row of what the windows make."""
    return Blocked(1, g.c, 1, g.output[1], lanes, 0)


def unfit_ring(
    dense: Sequence[ConvGeometry], g: ConvGeometry, lanes: int, threads: int
) -> str | None:
    """Why the windows behind the first of the dense convolutions should not read from a ring.

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


class WindowKernel(Protocol):
    """What slides over each channel.

    Parameters
    ----------
    g : the window, as of a depthwise convolution.
    x, y : the ring, and what is written.
    constants : how many buffers of constants it reads.
    outside : what the padding holds.
    """

    @property
    def g(self) -> ConvGeometry: ...

    @property
    def x(self) -> Blocked: ...

    @property
    def y(self) -> Blocked: ...

    @property
    def constants(self) -> int: ...

    @property
    def outside(self) -> float: ...

    def put_row(
        self,
        f: Function,
        block: Value,
        rows: Sequence[Value],
        constants: Sequence[Value],
        target: Value,
    ) -> None:
        """One row of one channel block, from where windows begin in each row that they cover."""


def depthwise_window(link: Link, y: Blocked, rows: int) -> DepthwiseKernel:
    """A depthwise convolution that reads a ring."""
    g = link.geometry
    return DepthwiseKernel(g, ring_of(g, y.lanes), y, (), link.epilogue, rows)


@dataclass(frozen=True, slots=True)
class RingKernel:
    """Everything that the code of both depends on."""

    dense: DenseKernel
    window: WindowKernel

    @staticmethod
    def of(dense: Link, x: Array, tile: tuple[int, int], window: WindowKernel) -> RingKernel:
        """The kernel that reads ``x``, in tiles of so many rows and vectors."""
        read = dense.anchored.task.tensor(0)
        source = (
            planar_source(dense.geometry, x.shape)
            if x.ndim == read.rank
            else blocked_source(dense.geometry, Blocked.of(read, x))
        )
        wide = DenseKernel(source, window.x, (), dense.epilogue, *tile, True, "wide")
        return RingKernel(wide, window)

    def add_tiles(self, module: Module) -> None:
        """Add the functions that :meth:`put_rows` calls."""
        self.dense.add_tiles(module)

    def scratch(self, f: Function) -> Value:
        """The ring on the stack, with the padding before and behind every row."""
        ring, left = self.window.x, self.window.g.begin[1]
        memory, outside = f.scratch(ring.image), f.constant(self.window.outside)

        def clear(row: Value) -> None:
            start = f.at(memory, f.mul(row, ring.row))
            for column in range(ring.margin):
                place = column if column < left else column + ring.w
                f.store_vector(outside, f.at(start, place * ring.lanes))

        f.loop(str(ring.blocks * ring.h), clear)
        return memory

    def put_rows(
        self,
        f: Function,
        place: tuple[Value, Value, Value],
        memory: Value,
        pointers: Sequence[Value],
        target: Callable[[Value], Value],
    ) -> None:
        """One row of outputs of every channel block.

        Parameters
        ----------
        place : (image, row, fresh); fresh where the ring does not hold the row before.
        pointers : the input, weights and bias, then the window's constants.
        target : of a block, where its row starts.
        """
        g, ring = self.window.g, self.window.x
        (image, row, fresh), (x, weights, bias, *constants) = place, pointers
        first = f.mul(row, g.strides[0])
        unread = f.add(first, max(0, ring.h - g.strides[0]))
        start, end = f.select(fresh, "i64", first, unread), f.add(first, ring.h)
        slots = [f.divide(f.add(first, r * g.dilations[0]), ring.h)[1] for r in range(g.kernel[0])]

        def put_group(group: Value) -> None:
            def fill(t: Value) -> None:
                self._fill(f, (image, group, t), (x, weights, bias), memory)

            f.loop(end, fill, start=start)
            for v in range(self.dense.vectors):
                block = f.add(f.mul(group, self.dense.vectors), v)
                plane = f.at(memory, f.mul(block, ring.plane))
                rows = [f.at(plane, f.mul(slot, ring.row)) for slot in slots]
                self.window.put_row(f, block, rows, constants, target(block))

        f.loop(str(self.dense.groups), put_group)

    def _fill(
        self,
        f: Function,
        place: tuple[Value, Value, Value],
        pointers: tuple[Value, Value, Value],
        memory: Value,
    ) -> None:
        """A row of a group of channel blocks of the ring, for ``place`` (image, group, row).

        Outside the picture it is padding: no bias reaches there.
        """
        g, ring, source = self.window.g, self.window.x, self.dense.source
        (image, group, t), (x, weights, bias) = place, pointers
        row = f.sub(t, g.begin[0])
        slot = f.at(memory, f.mul(f.divide(t, ring.h)[1], ring.row))
        slot = f.at(slot, g.begin[1] * ring.lanes)

        def compute() -> None:
            read = f.at(f.at(x, f.mul(image, source.image)), source.first)
            read = f.at(read, f.mul(row, source.row))
            self.dense.put_row(f, ("0", group, "0"), [read, weights, bias, slot])

        def clear() -> None:
            outside, vectors = f.constant(self.window.outside), self.dense.vectors
            first = f.at(slot, f.mul(group, vectors * ring.plane))

            def pixel(index: Value) -> None:
                place = f.at(first, f.mul(index, ring.lanes))
                for v in range(vectors):
                    f.store_vector(outside, f.at(place, v * ring.plane))

            f.loop(ring.w, pixel)

        f.when(f.compare("ult", row, g.spatial[0]), compute)
        f.when(f.compare("uge", row, g.spatial[0]), clear)


@dataclass(frozen=True, slots=True)
class RingRows:
    """Code of both, with nothing behind; one unit is a row of outputs."""

    ring: RingKernel

    @property
    def units(self) -> int:
        return self.ring.window.y.n * self.ring.window.y.h

    def ir(self) -> str:
        """Buffers come as (x, weights, bias, the window's constants, y)."""
        ring, y = self.ring, self.ring.window.y
        module = Module(y.lanes)
        ring.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        count = 4 + ring.window.constants
        *read, target = (f.argument("%args", index) for index in range(count))
        memory = ring.scratch(f)

        def unit(index: Value) -> None:
            image, row = f.divide(index, y.h)

            def start(block: Value) -> Value:
                return row_start(f, target, y, image, block, row)

            place = (image, row, begins_anew(f, index, row))
            ring.put_rows(f, place, memory, read, start)
            f.loop(str(y.blocks), lambda block: clear_halo(f, y, start(block), row))

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)


def begins_anew(f: Function, unit: Value, row: Value) -> Value:
    """Whether a range of units or a picture begins here."""
    return f.emit(f"or i1 {f.compare('eq', unit, '%begin')}, {f.compare('eq', row, 0)}")
