"""A dense convolution and the maximum of windows behind it, row by row: how many networks begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, along_row
from mnnpy.backends.numba_cpu.conv_chain import Link
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.conv_pool import (
    PooledKernel,
    maximum_macs,
    pooled_parts,
    pooled_source,
)
from mnnpy.backends.numba_cpu.conv_ring import RingKernel, RingRows, ring_of, unfit_ring
from mnnpy.backends.numba_cpu.convolutions import computed_channels, row_choices
from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.schemes.geometry import ConvGeometry


class ConvPooled(PooledKernel):
    """The rows of the convolution that a window covers lie in a ring."""

    __slots__ = ()
    scheme = "conv_pooled"

    @property
    def convolution(self) -> ConvDirect:
        return ConvDirect(self.jit)

    def unfit(self, conv: Link, pool: ConvGeometry, device: Device) -> str | None:
        if pool.n * pool.output[0] < device.threads:
            return f"{pool.n * pool.output[0]} rows for {device.threads} threads"
        return unfit_ring((conv.geometry,), pool, self.lanes, device.threads)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        conv, pool = pooled_parts(task)
        (tile,) = self.convolution.configs(conv.task, device)
        (pool_rows,) = row_choices(pool.output[1], 7, 5)
        return ((("pool_rows", pool_rows), *tile),)

    def packing_config(self, config: Config) -> Config:
        return (("vectors", dict(config)["vectors"]),)

    def work(self, task: Task, config: Config) -> Work:
        conv, pool = pooled_parts(task)
        g = conv.geometry
        macs = g.n * g.pixels * g.c * g.taps * computed_channels(g.k, self.lanes)
        return Work(macs + maximum_macs(pool), task.nbytes, 2)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (conv, pool), options = pooled_parts(task), dict(config)
        x, y = buffers.inputs[pooled_source(conv)], buffers.outputs[0]
        assert x is not None
        target = Blocked.of(task.output(), y)
        window = MaxWindow(pool, ring_of(pool, self.lanes), target, int(options["pool_rows"]))
        tile = int(options["rows"]), int(options["vectors"])
        kernel = RingRows(RingKernel.of(conv, x, tile, window))
        return self.call(kernel.ir(), [x, *buffers.packed, y], kernel.units)


@dataclass(frozen=True, slots=True)
class MaxWindow:
    """Maxima of windows over the rows of a ring; ``rows`` pixels at once."""

    g: ConvGeometry
    x: Blocked
    y: Blocked
    rows: int

    constants = 0
    outside = float("-inf")

    def put_row(
        self,
        f: Function,
        block: Value,
        rows: Sequence[Value],
        constants: Sequence[Value],
        target: Value,
    ) -> None:
        """One row of one channel block; columns that windows share are folded once."""
        lanes, stride = self.y.lanes, self.g.strides[1]

        def tile(pixels: int, first: Value) -> None:
            aside = f.mul(first, stride * lanes)
            folded: dict[int, Value] = {}

            def column(index: int) -> Value:
                if index not in folded:
                    places = (f.at(f.at(row, aside), index * lanes) for row in rows)
                    folded[index] = self._largest(f, [f.load_vector(place) for place in places])
                return folded[index]

            for pixel in range(pixels):
                taps = range(self.g.kernel[1])
                seen = [column(pixel * stride + tap * self.g.dilations[1]) for tap in taps]
                place = f.at(target, f.mul(f.add(first, pixel), lanes))
                f.store_vector(self._largest(f, seen), place)

        along_row(f, self.y.w, self.rows, tile)

    @staticmethod
    def _largest(f: Function, values: Sequence[Value]) -> Value:
        total, *others = values
        for value in others:
            total = f.largest(total, value)
        return total
