"""A dense convolution and the maximum of windows behind it, row by row: how many networks begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mnnpy.backends.numba_cpu.blocked import Blocked, along_row, blocked
from mnnpy.backends.numba_cpu.conv_chain import Link
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.conv_ring import RingKernel, RingRows, ring_of, unfit_ring
from mnnpy.backends.numba_cpu.convolutions import computed_channels, row_choices
from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.graph.types import Value as Known
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.pooling import MaxPool
from mnnpy.schemes.geometry import ConvGeometry

_MAXIMUM_MACS = 3
"""A maximum, which keeps what is not a number, takes as long as so many multiply-adds."""


class ConvPooled(NativeKernel):
    """The rows of the convolution that a window covers lie in a ring."""

    __slots__ = ()
    scheme = "conv_pooled"
    operators = (Conv,)

    def carries(self, region: Graph) -> bool:
        products = [isinstance(node.op, Conv) for node in region.nodes]
        return products[0] and sum(products) == 1 and isinstance(region.nodes[-1].op, MaxPool)

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, Fused):
            return "one convolution alone"
        if task.output().rank != 4:
            return "no picture"
        conv, pool = _parts(task)
        reason = ConvDirect(self.jit).reject(conv.task, device)
        if reason is not None:
            return reason
        if conv.epilogue.added:
            return "something is added between the two"
        if len(task.outputs) > 1:
            return "does not find where the maxima lie"
        if pool.n * pool.output[0] < device.threads:
            return f"{pool.n * pool.output[0]} rows for {device.threads} threads"
        return unfit_ring((conv.geometry,), pool, self.lanes, device.threads)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        conv, pool = _parts(task)
        (tile,) = ConvDirect(self.jit).configs(conv.task, device)
        (pool_rows,) = row_choices(pool.output[1], 7, 5)
        return ((("pool_rows", pool_rows), *tile),)

    def packing_config(self, config: Config) -> Config:
        return (("vectors", dict(config)["vectors"]),)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        conv, _ = _parts(task)
        inputs = [PLAIN] * len(task.inputs)
        inputs[_source(conv)] = ConvDirect(self.jit).source_layout(conv.geometry)
        return tuple(inputs), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        conv, pool = _parts(task)
        g = conv.geometry
        macs = g.n * g.pixels * g.c * g.taps * computed_channels(g.k, self.lanes)
        maxima = pool.n * pool.pixels * pool.c * pool.taps
        return Work(macs + _MAXIMUM_MACS * maxima, task.nbytes, 2)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        conv, _ = _parts(task)
        found = (conv.anchored.positions[1], conv.anchored.bias)
        places = (conv.places[position] for position in found if position is not None)
        return tuple(place for place in places if place is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        return ConvDirect(self.jit).pack(_parts(task)[0].task, config)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (conv, pool), options = _parts(task), dict(config)
        x, y = buffers.inputs[_source(conv)], buffers.outputs[0]
        assert x is not None
        target = Blocked.of(task.output(), y)
        window = MaxWindow(pool, ring_of(pool, self.lanes), target, int(options["pool_rows"]))
        tile = int(options["rows"]), int(options["vectors"])
        kernel = RingRows(RingKernel.of(conv, x, tile, window))
        return self.call(kernel.ir(), [x, *buffers.packed, y], kernel.units)


def pooled_convolutions(
    graph: Graph, products: Sequence[tuple[Node, ...]]
) -> Iterator[tuple[Node, ...]]:
    """Convolutions with the elementwise chain and the pool behind them.

    ``products`` are regions of one product each.
    """
    alone = [(node,) for node in graph.nodes if isinstance(node.op, Conv)]
    for region in (*products, *alone):
        (made,) = region[-1].outputs
        readers = graph.consumers.get(made, ())
        if made in graph.outputs or len(readers) != 1 or not isinstance(readers[0].op, MaxPool):
            continue
        if isinstance(region[0].op, Conv):
            yield (*region, readers[0])


@lru_cache(maxsize=1)
def _parts(task: Task) -> tuple[Link, ConvGeometry]:
    """The convolution as a task of its own, and the pool's window as a depthwise convolution's."""
    assert isinstance(task.op, Fused)
    region = task.op.graph
    pool = region.nodes[-1].op
    assert isinstance(pool, MaxPool)
    given: Mapping[str, Known | None] = dict(zip(region.inputs, task.inputs, strict=True))
    types = {name: v.type for name, v in given.items() if v is not None and v.type}
    op = Fused(region.extract(region.nodes[:-1], types))
    read = tuple(op.graph.inputs)
    inputs = tuple(given[name] for name in read)
    outputs = op.infer(*inputs)
    places = tuple(list(region.inputs).index(name) for name in read)
    link = Link(Task(op, inputs, outputs), places)
    n, c, *spatial = (int(dim) for dim in link.task.output().shape)
    window = pool.window(link.task.output().shape[2:])
    begin, end = (tuple(int(dim) for dim in side) for side in (window.begin, window.end))
    output = tuple(int(dim) for dim in window.output)
    sizes = (tuple(spatial), output, window.kernel, window.strides, window.dilations)
    return link, ConvGeometry(n, c, c, c, *sizes, begin, end, task.output().dtype, window)


def _source(conv: Link) -> int:
    """Region input that the convolution reads."""
    assert conv.source is not None
    return conv.source


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
