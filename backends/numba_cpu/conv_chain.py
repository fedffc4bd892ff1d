"""Convolutions one behind the other: cutting their region, and what its kernels answer alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

from mnnpy.backends.numba_cpu.blocked import blocked
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import computed_channels, epilogue_of
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Config, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Array, Type
from mnnpy.runtime.graph.types import Value as Known
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.regions import Anchored, split_anchored
from mnnpy.schemes.geometry import ConvGeometry


@dataclass(frozen=True, eq=False)
class Link:
    """One convolution of a chain, with the elementwise chain behind it, as a task of its own.

    Parameters
    ----------
    places : for each input of the task, the region input that feeds it; None for what the
        convolution before makes.
    """

    task: Task
    places: tuple[int | None, ...]

    @cached_property
    def anchored(self) -> Anchored:
        return split_anchored(self.task)

    @cached_property
    def geometry(self) -> ConvGeometry:
        return picture_geometry(self.anchored.task)

    @cached_property
    def epilogue(self) -> Epilogue:
        return epilogue_of(self.task, self.anchored)

    @property
    def source(self) -> int | None:
        """Region input that the convolution reads."""
        return self.places[self.anchored.source]

    @property
    def added(self) -> tuple[int | None, ...]:
        """Region inputs that the epilogue reads."""
        return tuple(self.places[position] for position in self.epilogue.added)


class ConvChain(NativeKernel):
    """A kernel for convolutions of given kinds, each reading only what the one before makes."""

    __slots__ = ()
    operators = (Conv,)
    kinds: ClassVar[tuple[type[ConvolutionKernel], ...]]

    def carries(self, region: Graph) -> bool:
        return len(_cuts(region)) == len(self.kinds)

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, Fused):
            return "one convolution alone"
        links = cut_chain(task)
        if task.output().rank == 3:
            return "a single row: there is nothing to do row by row"
        for kind, link in zip(self.kinds, links, strict=True):
            reason = kind(self.jit).reject(link.task, device)
            if reason is not None:
                return reason
        if any(link.epilogue.added for link in links[:-1]):
            return "something is added between the convolutions"
        adds_source = source_input(links) in added_inputs(links)
        if adds_source and self.source_layout(links).kind != "blocked":
            return "adds its input, which lies in another layout than the output"
        g = links[-1].geometry
        if g.n * g.output[0] < device.threads:
            return f"{g.n * g.output[0]} rows for {device.threads} threads"
        return self.unfit(links, device)

    def unfit(self, links: Sequence[Link], device: Device) -> str | None:
        """Why the kernel does not take these sizes; None where it does."""
        raise NotImplementedError(self.scheme)

    def packing_config(self, config: Config) -> Config:
        return ()

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        links = cut_chain(task)
        inputs = [PLAIN] * len(task.inputs)
        for position in added_inputs(links):
            inputs[position] = blocked(self.lanes)
        inputs[source_input(links)] = self.source_layout(links)
        return tuple(inputs), (blocked(self.lanes),)

    def source_layout(self, links: Sequence[Link]) -> Layout:
        """How the chain's input must lie."""
        return self.kinds[0](self.jit).source_layout(links[0].geometry)

    def depthwise_height(self, link: Link, device: Device) -> int:
        """Height of a depthwise convolution's tiles."""
        (config, *_) = ConvDepthwise(self.jit).configs(link.task, device)
        return int(dict(config)["rows"])

    def dense_height(self, link: Link, device: Device) -> int:
        """Height of a dense convolution's tiles, one vector wide, on a row."""
        g = link.geometry
        return choose_tile(device, self.lanes, g.output[1], -(-g.k // self.lanes), (1,))[0]

    def multiplied(self, dense: Sequence[Link], depthwise: Link) -> int:
        """Multiply-adds at the pace of dense ones.

        Those of a depthwise convolution are slower, more so where windows share fewer columns.
        """
        macs = depthwise.task.macs * (7 if max(depthwise.geometry.strides) == 1 else 10) // 6
        for g in (link.geometry for link in dense):
            macs += g.n * g.pixels * g.c * g.taps * computed_channels(g.k, self.lanes)
        return macs

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        found = (
            link.places[position]
            for link in cut_chain(task)
            for position in (link.anchored.positions[1], link.anchored.bias)
            if position is not None
        )
        return tuple(place for place in found if place is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        one = (("vectors", 1),)
        links = zip(self.kinds, cut_chain(task), strict=True)
        return tuple(array for kind, link in links for array in kind(self.jit).pack(link.task, one))


def source_input(links: Sequence[Link]) -> int:
    """Region input that the first convolution reads."""
    source = links[0].source
    assert source is not None
    return source


def added_inputs(links: Sequence[Link]) -> tuple[int, ...]:
    """Region inputs that are added behind the last convolution."""
    return tuple(position for position in links[-1].added if position is not None)


def chained_convolutions(
    graph: Graph, products: Sequence[tuple[Node, ...]], grouped: Sequence[bool]
) -> Iterator[tuple[Node, ...]]:
    """Convolutions with the elementwise chains behind them, each the only reader of the one before.

    Parameters
    ----------
    products : regions of one product each.
    grouped : for each convolution, whether it has groups.
    """
    starting: dict[str, list[tuple[Node, ...]]] = {}
    for region in products:
        starting.setdefault(region[0].name, []).append(region)

    def chains(node: Node, grouped: Sequence[bool]) -> Iterator[tuple[Node, ...]]:
        if not isinstance(node.op, Conv) or (node.op.group > 1) != grouped[0]:
            return
        for first in (*starting.get(node.name, ()), (node,)):
            if len(grouped) == 1:
                yield first
                continue
            (between,) = first[-1].outputs
            readers = graph.consumers.get(between, ())
            if len(readers) == 1 and readers[0].inputs[0] == between not in graph.outputs:
                for rest in chains(readers[0], grouped[1:]):
                    yield (*first, *rest)

    for node in graph.nodes:
        yield from chains(node, grouped)


@lru_cache(maxsize=1)
def cut_chain(task: Task) -> tuple[Link, ...]:
    """The convolutions of a region; kept for the next question about the same task."""
    assert isinstance(task.op, Fused)
    region = task.op.graph
    names = list(region.inputs)
    given = dict(zip(names, task.inputs, strict=True))
    types: dict[str, Type] = {n: v.type for n, v in given.items() if v is not None and v.type}
    cuts = _cuts(region)
    links: list[Link] = []
    made: str | None = None
    for begin, end in zip(cuts, (*cuts[1:], len(region.nodes)), strict=True):
        part = region.extract(region.nodes[begin:end], types)
        read = sorted(part.inputs, key=lambda name: name != made)
        op = Fused(Graph(part.nodes, {name: types[name] for name in read}, part.outputs))
        inputs = tuple(Known(types[name]) if name == made else given[name] for name in read)
        outputs = op.infer(*inputs)
        places = tuple(None if name == made else names.index(name) for name in read)
        links.append(Link(Task(op, inputs, outputs), places))
        (made,) = part.outputs
        types[made] = outputs[0]
    return tuple(links)


def _cuts(region: Graph) -> tuple[int, ...]:
    """Places of convolutions that begin the region and read what the node before them makes."""
    cuts = tuple(index for index, node in enumerate(region.nodes) if isinstance(node.op, Conv))
    begun = bool(cuts) and cuts[0] == 0
    chained = all(
        region.nodes[cut].inputs[0] == region.nodes[cut - 1].outputs[0] for cut in cuts[1:]
    )
    return cuts if begun and chained else ()
