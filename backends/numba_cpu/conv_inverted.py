"""A convolution that widens, a depthwise one, and a 1x1 convolution that narrows, row by row: an
inverted residual block, or how a network of them begins. The wide tensor never leaves a near cache.

Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018, section 3.
"""

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
from mnnpy.backends.numba_cpu.conv_depthwise import ConvDepthwise
from mnnpy.backends.numba_cpu.conv_direct import ConvDirect
from mnnpy.backends.numba_cpu.conv_ring import (
    RingKernel,
    begins_anew,
    depthwise_window,
    row_behind,
    unfit_ring,
)
from mnnpy.backends.numba_cpu.convolutions import is_flat
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work


class ConvInverted(ConvChain):
    """The wide rows that a window covers lie in a ring, the row behind it beside them."""

    __slots__ = ()
    scheme = "conv_inverted"
    kinds = (ConvDirect, ConvDepthwise, ConvDirect)

    def unfit(self, links: Sequence[Link], device: Device) -> str | None:
        widen, depthwise, narrow = (link.geometry for link in links)
        if not is_flat(narrow):
            return "the last convolution is not 1x1"
        return unfit_ring((widen, narrow), depthwise, self.lanes, device.threads)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        widen, depthwise, narrow = cut_chain(task)
        config = (
            ("depthwise_rows", self.depthwise_height(depthwise, device)),
            ("rows", self.dense_height(narrow, device)),
            ("wide_rows", self.dense_height(widen, device)),
        )
        return (config,)

    def work(self, task: Task, config: Config) -> Work:
        widen, depthwise, narrow = cut_chain(task)
        return Work(self.multiplied((widen, narrow), depthwise), task.nbytes, 2)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        links, options = cut_chain(task), dict(config)
        widen, depthwise, narrow = links
        x, y = buffers.inputs[source_input(links)], buffers.outputs[0]
        added = [a for p in added_inputs(links) if (a := buffers.inputs[p]) is not None]
        assert x is not None
        between = row_behind(depthwise.geometry, self.lanes)
        wide_rows, depthwise_rows = int(options["wide_rows"]), int(options["depthwise_rows"])
        kernel = _Inverted(
            RingKernel.of(
                widen, x, (wide_rows, 1), depthwise_window(depthwise, between, depthwise_rows)
            ),
            DenseKernel(
                blocked_source(narrow.geometry, between),
                Blocked.of(task.output(), y),
                tuple(Blocked.of(task.output(), a) for a in added),
                narrow.epilogue,
                int(options["rows"]),
                1,
                rows_first=True,
            ),
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


@dataclass(frozen=True, slots=True)
class _Inverted:
    """Everything that the code depends on; one unit is a row of outputs."""

    ring: RingKernel
    narrow: DenseKernel

    @property
    def units(self) -> int:
        return self.narrow.y.n * self.narrow.y.h

    def ir(self) -> str:
        ring, narrow, between = self.ring, self.narrow, self.ring.window.y
        module = Module(between.lanes)
        ring.add_tiles(module)
        narrow.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        count = 8 + len(narrow.residuals)
        x, w1, b1, w2, b2, *rest = (f.argument("%args", index) for index in range(count))
        memory, kept = ring.scratch(f), f.scratch(between.image)

        def unit(index: Value) -> None:
            image, row = f.divide(index, narrow.y.h)
            ring.put_rows(
                f,
                (image, row, begins_anew(f, index, row)),
                memory,
                (x, w1, b1, w2, b2),
                lambda block: f.at(kept, f.mul(block, between.plane)),
            )
            f.loop(
                str(narrow.groups),
                lambda group: narrow.put_row(f, (image, group, row), [kept, *rest]),
            )

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)
