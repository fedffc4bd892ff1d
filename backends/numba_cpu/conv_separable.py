"""Depthwise convolution and the 1x1 convolution behind it, row by row in near cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise, DepthwiseKernel
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.convolutions import epilogue_of, halo_needed, is_flat
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import PLAIN, Buffers, Config, Device, Layout, Run, Task, Work
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Array, TensorType
from mnnpy.runtime.graph.types import Value as Known
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.regions import Anchored, split_anchored
from mnnpy.schemes.geometry import ConvGeometry

_ROW_FLOATS = 1 << 15
"""One row of all channels between the two lies on the stack."""

_WEIGHTS_NBYTES = 1 << 15
"""Weights of the 1x1 convolution, which every row passes; they stay in the near cache."""


class ConvSeparable(NativeKernel):
    """What the depthwise half writes, the other reads at once: it never leaves the near cache."""

    __slots__ = ()
    scheme = "conv_separable"
    operators = (Conv,)

    def carries(self, region: Graph) -> bool:
        return _second_convolution(region) is not None

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, Fused):
            return "one convolution alone"
        parts = _Parts.of(task)
        if not isinstance(parts.first.outputs[0], TensorType):
            return "no tensor between the convolutions"
        reason = ConvDepthwise(self.jit).reject(parts.first, device)
        reason = reason or ConvDirect(self.jit).reject(parts.second, device)
        if reason is not None:
            return reason
        g = parts.geometry(parts.second)
        if not is_flat(g):
            return "the second convolution is not 1x1"
        if epilogue_of(parts.first, parts.anchored(parts.first)).added:
            return "something is added between the convolutions"
        if parts.source in parts.added:
            return "adds its input"
        if 4 * g.c * g.k > _WEIGHTS_NBYTES:
            return "the weights do not stay in a near cache"
        return "rows overflow the stack" if g.output[1] * g.c > _ROW_FLOATS else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        parts = _Parts.of(task)
        ((first, *_), (second, *_)) = (
            ConvDepthwise(self.jit).configs(parts.first, device),
            ConvDirect(self.jit).configs(parts.second, device),
        )
        rows, depthwise_rows = dict(second)["rows"], dict(first)["rows"]
        return ((("depthwise_rows", depthwise_rows), ("rows", rows)),)

    def packing_config(self, config: Config) -> Config:
        return ()

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        parts = _Parts.of(task)
        inputs = [PLAIN] * len(task.inputs)
        for position in parts.added:
            inputs[position] = blocked(self.lanes)
        inputs[parts.source] = blocked(self.lanes, halo_needed(parts.geometry(parts.first)))
        return tuple(inputs), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        """Depthwise multiply-adds run at some three quarters of the pace of others."""
        parts = _Parts.of(task)
        dense = ConvDirect(self.jit).work(parts.second, (("rows", 1), ("vectors", 1)))
        return Work(dense.macs + parts.first.macs * 4 // 3, task.nbytes, 2)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        parts = _Parts.of(task)
        found = (
            places[position]
            for part, places in parts.each
            for position in (parts.anchored(part).positions[1], parts.anchored(part).bias)
            if position is not None
        )
        return tuple(found)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        parts = _Parts.of(task)
        return (
            *ConvDepthwise(self.jit).pack(parts.first, ()),
            *ConvDirect(self.jit).pack(parts.second, (("vectors", 1),)),
        )

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        parts, options = _Parts.of(task), dict(config)
        first, second = parts.anchored(parts.first), parts.anchored(parts.second)
        x, y = buffers.inputs[parts.source], buffers.outputs[0]
        added = [a for position in parts.added if (a := buffers.inputs[position]) is not None]
        assert x is not None
        between = parts.first.output()
        n, c, _, width = (int(dim) for dim in between.shape)
        row = Blocked(n, c, 1, width, self.lanes, 0)
        g = ConvGeometry.of(second.task)
        kernel = _Separable(
            DepthwiseKernel(
                ConvGeometry.of(first.task),
                Blocked.of(first.task.tensor(0), x),
                row,
                (),
                epilogue_of(parts.first, first),
                int(options["depthwise_rows"]),
            ),
            DenseKernel(
                blocked_source(g, row),
                Blocked.of(task.output(), y),
                tuple(Blocked.of(task.output(), a) for a in added),
                epilogue_of(parts.second, second),
                int(options["rows"]),
                1,
                rows_first=True,
            ),
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


def separable_regions(
    graph: Graph, chains: Sequence[tuple[Node, ...]]
) -> Iterator[tuple[Node, ...]]:
    """A chain that begins with a depthwise convolution, with the chain behind it that begins with a
    1x1 convolution; ``chains`` are regions of one product each.
    """
    starting: dict[str, list[tuple[Node, ...]]] = {}
    for region in chains:
        starting.setdefault(region[0].name, []).append(region)
    for node in graph.nodes:
        if not isinstance(node.op, Conv) or node.op.group == 1:
            continue
        for first in (*starting.get(node.name, ()), (node,)):
            (between,) = first[-1].outputs
            readers = graph.consumers.get(between, ())
            if len(readers) != 1 or between in graph.outputs:
                continue
            reader = readers[0]
            if isinstance(reader.op, Conv) and reader.inputs[0] == between:
                for second in (*starting.get(reader.name, ()), (reader,)):
                    yield (*first, *second)


def _second_convolution(region: Graph) -> int | None:
    """Place of the second convolution of a region of two, which reads what the first part makes."""
    places = [index for index, node in enumerate(region.nodes) if isinstance(node.op, Conv)]
    if len(places) != 2 or places[0] != 0:
        return None
    second = region.nodes[places[1]]
    return places[1] if second.inputs[0] == region.nodes[places[1] - 1].outputs[0] else None


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """A region as two tasks; places say which region input feeds each of a part's inputs."""

    first: Task
    second: Task
    first_places: tuple[int, ...]
    second_places: tuple[int, ...]

    @staticmethod
    def of(task: Task) -> _Parts:
        assert isinstance(task.op, Fused)
        graph = task.op.graph
        cut = _second_convolution(graph)
        assert cut is not None
        names = list(graph.inputs)
        (between,) = graph.nodes[cut - 1].outputs
        given = dict(zip(names, task.inputs, strict=True))
        types = {name: v.tensor for name, v in given.items() if v is not None}
        before = graph.extract(graph.nodes[:cut], types)
        op = Fused(before)
        (made,) = op.infer(*(given[name] for name in before.inputs))
        first = Task(op, tuple(given[name] for name in before.inputs), (made,))
        behind = graph.extract(graph.nodes[cut:], {**types, between: made})
        rest = [name for name in behind.inputs if name != between]
        ordered = Graph(
            behind.nodes, {between: made, **{n: types[n] for n in rest}}, behind.outputs
        )
        inputs = (Known(made), *(given[name] for name in rest))
        second = Task(Fused(ordered), inputs, task.outputs)
        return _Parts(
            first,
            second,
            tuple(names.index(name) for name in before.inputs),
            (-1, *(names.index(name) for name in rest)),
        )

    @property
    def each(self) -> tuple[tuple[Task, tuple[int, ...]], ...]:
        return (self.first, self.first_places), (self.second, self.second_places)

    @staticmethod
    def anchored(part: Task) -> Anchored:
        return split_anchored(part)

    @staticmethod
    def geometry(part: Task) -> ConvGeometry:
        return ConvGeometry.of(split_anchored(part).task)

    @property
    def source(self) -> int:
        """Region input that the depthwise convolution reads."""
        return self.first_places[split_anchored(self.first).source]

    @property
    def added(self) -> tuple[int, ...]:
        """Region inputs that are added behind the second convolution."""
        epilogue = epilogue_of(self.second, split_anchored(self.second))
        return tuple(self.second_places[position] for position in epilogue.added)


@dataclass(frozen=True, slots=True)
class _Separable:
    """Everything that the code depends on; one unit is a row of outputs."""

    depthwise: DepthwiseKernel
    dense: DenseKernel

    @property
    def units(self) -> int:
        return self.dense.y.n * self.dense.y.h

    def ir(self) -> str:
        dense, between = self.dense, self.depthwise.y
        module = Module(between.lanes)
        dense.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, w1, b1, *rest = (f.argument("%args", i) for i in range(6 + len(dense.residuals)))
        scratch = f.scratch(between.image)

        def unit(index: Value) -> None:
            image, row = f.divide(index, dense.y.h)

            def first(block: Value) -> None:
                place = f.at(scratch, f.mul(block, between.plane))
                self.depthwise.put_row(f, (image, block, row), [x, w1, b1], place)

            f.loop(str(between.blocks), first)
            f.loop(
                str(dense.groups),
                lambda group: dense.put_row(f, (image, group, row), [scratch, *rest]),
            )

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)
