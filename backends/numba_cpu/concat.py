"""Concatenation of channel-blocked tensors along channels."""

from __future__ import annotations

from dataclasses import replace

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.layout_copy import RowCopy
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.layouts import Layout
from mnnpy.runtime.ops.slicing import Concat


class ConcatBlocks(NativeKernel):
    """Copies the pieces that memory planning could not place inside the output."""

    __slots__ = ()
    scheme = "concat"
    operators = (Concat,)

    def reject(self, task: Task, device: Device) -> str | None:
        assert isinstance(task.op, Concat)
        y = task.output()
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size or task.op.axis % y.rank != 1:
            return f"{y} is not a picture of float32, or the axis is not that of channels"
        if any(value is None or value.constant for value in task.inputs):
            return "a piece is constant"
        channels = [int(task.tensor(index).shape[1]) for index in range(len(task.inputs))]
        if any(count % self.lanes for count in channels[:-1]):
            return f"pieces of {channels} channels do not end with a block of {self.lanes}"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (blocked(self.lanes),) * len(task.inputs), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, len(task.inputs))

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        y = Blocked.of(task.output(), buffers.outputs[0])
        calls, block = [], 0
        for index, piece in enumerate(buffers.inputs):
            assert piece is not None
            x = Blocked.of(task.tensor(index), piece)
            one = replace(x, n=1)
            copy = RowCopy(self.lanes, one, replace(one, halo=y.halo))
            for image in range(0 if index in buffers.aliased else x.n):
                source = piece[image]
                target = buffers.outputs[0][image, block:]
                calls.append(self.call(copy.ir(), [source, target], copy.units))
            block += x.blocks
        return NativeSequence(tuple(calls))
