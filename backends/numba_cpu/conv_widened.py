"""A dense convolution and the depthwise one behind it, row by row: an inverted residual block up to
where its channels are weighed (squeeze and excitation), before which all of them must be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.conv_chain import ConvChain, Link, cut_chain, source_input
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.conv_ring import RingKernel, begins_anew, unfit_ring
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.contracts import Buffers, Config, Device, Run, Task, Work


class ConvWidened(ConvChain):
    """The wide rows that a window covers lie in a ring."""

    __slots__ = ()
    scheme = "conv_widened"
    kinds = (ConvDirect, ConvDepthwise)

    def unfit(self, links: Sequence[Link], device: Device) -> str | None:
        widen, depthwise = (link.geometry for link in links)
        if links[1].epilogue.added:
            return "something is added behind the depthwise convolution"
        return unfit_ring((widen,), depthwise, self.lanes, device.threads)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        widen, depthwise = cut_chain(task)
        heights = self.depthwise_height(depthwise, device), self.dense_height(widen, device)
        return ((("depthwise_rows", heights[0]), ("rows", heights[1])),)

    def work(self, task: Task, config: Config) -> Work:
        widen, depthwise = cut_chain(task)
        return Work(self.multiplied((widen,), depthwise), task.nbytes, 2)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        links, options = cut_chain(task), dict(config)
        x, y = buffers.inputs[source_input(links)], buffers.outputs[0]
        assert x is not None
        target, depthwise_rows = Blocked.of(task.output(), y), int(options["depthwise_rows"])
        kernel = _Widened(
            RingKernel.of(links[0], x, int(options["rows"]), links[1], target, depthwise_rows)
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y], kernel.units)


@dataclass(frozen=True, slots=True)
class _Widened:
    """Everything that the code depends on; one unit is a row of outputs."""

    ring: RingKernel

    @property
    def units(self) -> int:
        return self.ring.depthwise.y.n * self.ring.depthwise.y.h

    def ir(self) -> str:
        ring, y = self.ring, self.ring.depthwise.y
        module = Module(y.lanes)
        ring.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, w1, b1, w2, b2, target = (f.argument("%args", index) for index in range(6))
        memory = ring.scratch(f)

        def unit(index: Value) -> None:
            image, row = f.divide(index, y.h)
            ring.put_rows(
                f,
                (image, row, begins_anew(f, index, row)),
                memory,
                (x, w1, b1, w2, b2),
                lambda block: row_start(f, target, y, image, block, row),
            )
            f.loop(
                str(y.blocks),
                lambda block: clear_halo(f, y, row_start(f, target, y, image, block, row), row),
            )

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)
