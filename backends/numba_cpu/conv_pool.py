"""A dense convolution and the maximum behind it: finding and cutting their region, and what its
kernels answer alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from mnnpy.backends.numba_cpu.blocked import blocked
from mnnpy.backends.numba_cpu.conv_chain import Link
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import Config, Task
from mnnpy.runtime.devices import Device
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


class PooledKernel(NativeKernel):
    """A convolution of one kind with the maximum behind it."""

    __slots__ = ()
    operators = (Conv,)

    @property
    def convolution(self) -> ConvolutionKernel:
        """The kernel of the convolution alone."""
        raise NotImplementedError(self.scheme)

    def carries(self, region: Graph) -> bool:
        products = [isinstance(node.op, Conv) for node in region.nodes]
        return products[0] and sum(products) == 1 and isinstance(region.nodes[-1].op, MaxPool)

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, Fused):
            return "one convolution alone"
        if task.output().rank != 4:
            return "no picture"
        conv, pool = pooled_parts(task)
        reason = self.convolution.reject(conv.task, device)
        if reason is not None:
            return reason
        if conv.epilogue.added:
            return "something is added between the two"
        if len(task.outputs) > 1:
            return "does not find where the maxima lie"
        return self.unfit(conv, pool, device)

    def unfit(self, conv: Link, pool: ConvGeometry, device: Device) -> str | None:
        """Why the kernel does not take these sizes; None where it does."""
        raise NotImplementedError(self.scheme)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        conv, _ = pooled_parts(task)
        inputs = [PLAIN] * len(task.inputs)
        inputs[pooled_source(conv)] = self.convolution.source_layout(conv.geometry)
        return tuple(inputs), (blocked(self.lanes),)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        conv, _ = pooled_parts(task)
        found = (conv.anchored.positions[1], conv.anchored.bias)
        places = (conv.places[position] for position in found if position is not None)
        return tuple(place for place in places if place is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        return self.convolution.pack(pooled_parts(task)[0].task, config)


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
def pooled_parts(task: Task) -> tuple[Link, ConvGeometry]:
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


def maximum_macs(pool: ConvGeometry) -> int:
    """All maxima, as multiply-adds."""
    return _MAXIMUM_MACS * pool.n * pool.pixels * pool.c * pool.taps


def pooled_source(conv: Link) -> int:
    """Region input that the convolution reads."""
    assert conv.source is not None
    return conv.source
