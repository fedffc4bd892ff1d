"""A dense convolution and the depthwise one behind it, row by row: an inverted residual block up to
where its channels are weighed (squeeze and excitation), before which all of them must be there.
"""

from __future__ import annotations

from collections.abc import Sequence

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_chain import ConvChain, Link, cut_chain, source_input
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.conv_ring import RingKernel, RingRows, depthwise_window, unfit_ring
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work


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
        window = depthwise_window(links[1], target, depthwise_rows)
        kernel = RingRows(RingKernel.of(links[0], x, (int(options["rows"]), 1), window))
        return self.call(kernel.ir(), [x, *buffers.packed, y], kernel.units)
