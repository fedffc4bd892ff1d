"""Depthwise convolution: the channels of a block in the lanes, a run of pixels in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from mnnpy.backends.numba_cpu.blocked import Blocked, along_row, clear_halo, row_start
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    pack_bias,
    pack_depthwise,
    row_choices,
)
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry


class ConvDepthwise(ConvolutionKernel):
    """One filter per channel, any kernel, stride and dilation."""

    __slots__ = ()
    scheme = "conv_depthwise"

    def unfit(self, g: ConvGeometry) -> str | None:
        if g.group == g.c == g.k:
            return None
        return f"{g.group} groups, {g.c} channels, {g.k} filters: needs one filter per channel"

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = picture_geometry(split_anchored(task).task)
        tallest = 7 if g.strides[1] == 1 else 14
        return tuple((("rows", rows),) for rows in row_choices(g.output[1], tallest, 5))

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        anchored = split_anchored(task)
        w = anchored.task.known(1)
        assert w is not None
        bias = None if anchored.bias is None else task.known(anchored.bias)
        return pack_depthwise(w, self.lanes), pack_bias(bias, len(w), self.lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored = split_anchored(task)
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        kernel = DepthwiseKernel(
            picture_geometry(anchored.task),
            Blocked.of(anchored.task.tensor(0), x),
            Blocked.of(task.output(), y),
            tuple(Blocked.of(task.output(), a) for a in added),
            epilogue,
            int(dict(config)["rows"]),
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


@dataclass(frozen=True, slots=True)
class DepthwiseKernel:
    """Everything that the code depends on; one unit is a row of one channel block.

    Parameters
    ----------
    channels, filters : of a group, whose outputs lie side by side in one vector and read all of its
        channels; a multiple of each other.
    """

    g: ConvGeometry
    x: Blocked
    y: Blocked
    residuals: tuple[Blocked, ...]
    epilogue: Epilogue
    rows: int
    channels: int = 1
    filters: int = 1

    constants = 2
    outside = 0.0

    @property
    def span(self) -> int:
        """Channels that one vector of outputs reads."""
        return self.y.lanes * self.channels // self.filters

    @property
    def units(self) -> int:
        return self.y.n * self.y.blocks * self.y.h

    def ir(self) -> str:
        module = Module(self.y.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        pointers = [f.argument("%args", index) for index in range(4 + len(self.residuals))]
        f.loop("%end", lambda unit: self._row(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        rest, row = f.divide(unit, self.y.h)
        image, block = f.divide(rest, self.y.blocks)
        x, weights, bias, target = pointers[:4]
        added = [
            row_start(f, pointer, r, image, block, row)
            for pointer, r in zip(pointers[4:], self.residuals, strict=True)
        ]
        start = row_start(f, target, self.y, image, block, row)
        rows = self.rows_read(f, (image, block, row), x)
        self.put_row(f, block, rows, (weights, bias), start, added, f.at(rows[-1], self.x.row))
        clear_halo(f, self.y, start, row)

    def rows_read(self, f: Function, place: tuple[Value, Value, Value], x: Value) -> list[Value]:
        """Where the windows of an output row begin in each row of the input that they cover.

        ``place`` is (image, block, row) of the output, ``x`` the input's start.
        """
        g, (image, block, row) = self.g, place
        first = (self.x.above - g.begin[0]) * self.x.row + (self.x.halo - g.begin[1]) * self.x.lanes
        plane, lane = block, "0"
        if self.span < self.x.lanes:
            plane, lane = f.divide(f.mul(block, self.span), self.x.lanes)
        x = f.at(f.at(x, f.mul(image, self.x.image)), f.add(f.mul(plane, self.x.plane), lane))
        x = f.at(f.at(x, f.mul(row, g.strides[0] * self.x.row)), first)
        return [f.at(x, r * g.dilations[0] * self.x.row) for r in range(g.kernel[0])]

    def put_row(
        self,
        f: Function,
        block: Value,
        rows: Sequence[Value],
        constants: Sequence[Value],
        target: Value,
        added: Sequence[Value] = (),
        below: Value | None = None,
    ) -> None:
        """One row of one channel block.

        Parameters
        ----------
        rows : where the windows begin in each row that they cover.
        constants : weights and bias from their start.
        target, added : the row's first pixel.
        below : where the next row of outputs reads on, to be brought near; None: it is near.
        """
        g, x, y = self.g, self.x, self.y
        weights, bias = constants
        weights = f.at(weights, f.mul(block, g.taps * self.channels * y.lanes))
        start = f.load_vector(f.at(bias, f.mul(block, y.lanes)))

        def tile(pixels: int, first: Value) -> None:
            moved = f.mul(first, y.lanes)
            aside = f.mul(first, g.strides[1] * x.lanes)
            if below is not None:
                self._fetch_ahead(f, f.at(below, aside), pixels)
            seen = [f.at(row, aside) for row in rows]
            sums = self._sums(f, seen, weights, start, pixels)
            for pixel, total in enumerate(sums):
                operands = tuple(
                    f.load_vector(f.at(f.at(pointer, moved), pixel * r.lanes))
                    for pointer, r in zip(added, self.residuals, strict=True)
                )
                value = self.epilogue.apply(f, total, operands)
                f.store_vector(value, f.at(f.at(target, moved), pixel * y.lanes))

        along_row(f, y.w, self.rows, tile)

    def _fetch_ahead(self, f: Function, below: Value, pixels: int) -> None:
        """Bring near what the next row of outputs reads and this one does not."""
        g, x = self.g, self.x
        if max(g.strides) > 2:
            return
        for row in range(g.strides[0]):
            for column in range(pixels * g.strides[1]):
                f.prefetch(f.at(below, row * x.row + column * x.lanes))

    def _sums(
        self, f: Function, seen: Sequence[Value], weights: Value, start: Value, pixels: int
    ) -> list[Value]:
        """Sums over the taps and the channels of a group; a column of the input that several taps
        read is loaded once.
        """
        g, x = self.g, self.x
        sums = [start] * pixels
        for r in range(g.kernel[0]):
            columns: dict[tuple[int, int], Value] = {}
            for s, channel in product(range(g.kernel[1]), range(self.channels)):
                term = (r * g.kernel[1] + s) * self.channels + channel
                weight = f.load_vector(f.at(weights, term * x.lanes))
                for pixel in range(pixels):
                    column = pixel * g.strides[1] + s * g.dilations[1]
                    if (column, channel) not in columns:
                        place = f.at(seen[r], column * x.lanes)
                        columns[column, channel] = self._spread(f, place, channel)
                    sums[pixel] = f.multiply_add(columns[column, channel], weight, sums[pixel])
        return sums

    def _spread(self, f: Function, place: Value, channel: int) -> Value:
        """One channel of each group, to all lanes of the group."""
        vector = f.load_lanes(place, self.span)
        if self.filters == 1:
            return vector
        groups = (lane // self.filters for lane in range(self.x.lanes))
        return f.permute(vector, [group * self.channels + channel for group in groups])
