"""Depthwise convolution and the 1x1 convolution behind it, row by row in near cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_chain import (
    ConvChain,
    Link,
    added_inputs,
    cut_chain,
    source_input,
)
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise, DepthwiseKernel
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.convolutions import is_flat
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work

_ROW_FLOATS = 1 << 15
"""One row of all channels between the two lies on the stack."""

_WEIGHTS_NBYTES = 1 << 15
"""Weights of the 1x1 convolution, which every row passes; they stay in the near cache."""


class ConvSeparable(ConvChain):
    """What the depthwise half writes, the other reads at once: it never leaves the near cache."""

    __slots__ = ()
    scheme = "conv_separable"
    kinds = (ConvDepthwise, ConvDirect)

    def unfit(self, links: Sequence[Link], device: Device) -> str | None:
        g = links[1].geometry
        if not is_flat(g):
            return "the second convolution is not 1x1"
        if 4 * g.c * g.k > _WEIGHTS_NBYTES:
            return "the weights do not stay in a near cache"
        return "rows overflow the stack" if g.output[1] * g.c > _ROW_FLOATS else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        depthwise, dense = cut_chain(task)
        heights = self.depthwise_height(depthwise, device), self.dense_height(dense, device)
        return ((("depthwise_rows", heights[0]), ("rows", heights[1])),)

    def work(self, task: Task, config: Config) -> Work:
        depthwise, dense = cut_chain(task)
        return Work(self.multiplied((dense,), depthwise), task.nbytes, 2)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        links, options = cut_chain(task), dict(config)
        first, second = links
        x, y = buffers.inputs[source_input(links)], buffers.outputs[0]
        added = [a for p in added_inputs(links) if (a := buffers.inputs[p]) is not None]
        assert x is not None
        g = first.geometry
        row = Blocked(1, g.c, 1, g.output[1], self.lanes, 0)
        kernel = _Separable(
            DepthwiseKernel(
                first.geometry,
                Blocked.of(first.anchored.task.tensor(0), x),
                row,
                (),
                first.epilogue,
                int(options["depthwise_rows"]),
            ),
            DenseKernel(
                blocked_source(second.geometry, row),
                Blocked.of(task.output(), y),
                tuple(Blocked.of(task.output(), a) for a in added),
                second.epilogue,
                int(options["rows"]),
                1,
                rows_first=True,
            ),
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


@dataclass(frozen=True, slots=True)
class _Separable:
    """Everything that the code depends on; one unit is a row of outputs."""

    depthwise: DepthwiseKernel
    dense: DenseKernel

    @property
    def units(self) -> int:
        return self.dense.y.n * self.dense.y.h

    def ir(self) -> str:
        dense, depthwise, between = self.dense, self.depthwise, self.depthwise.y
        module = Module(between.lanes)
        dense.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, w1, b1, *rest = (f.argument("%args", i) for i in range(6 + len(dense.residuals)))
        scratch = f.scratch(between.image)

        def unit(index: Value) -> None:
            image, row = f.divide(index, dense.y.h)

            def first(block: Value) -> None:
                rows = depthwise.rows_read(f, (image, block, row), x)
                target = f.at(scratch, f.mul(block, between.plane))
                below = f.at(rows[-1], depthwise.x.row)
                depthwise.put_row(f, block, rows, (w1, b1), target, below=below)

            f.loop(str(between.blocks), first)
            f.loop(
                str(dense.groups),
                lambda group: dense.put_row(f, (image, group, row), [scratch, *rest]),
            )

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)
