"""Pictures continued beyond their borders, in channel-blocked layout."""

from __future__ import annotations

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.backends.numba_cpu.resize import TappedRows, Taps
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.shape_math import as_ints
from mnnpy.runtime.ops.slicing import Pad, pad_borders, padded_places


class PadPlanes(NativeKernel):
    """Reflected, repeated or wrapped around: every pixel of the result is one of the input."""

    __slots__ = ()
    scheme = "pad_planes"
    operators = (Pad,)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, Pad) or op.mode == "constant":
            return "pads with a number"
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size or not task.tensor(0).size:
            return f"{y} is not a picture of float32"
        if any(value is not None and not value.constant for value in task.inputs[1:]):
            return "its pads are not constant"
        if any(axis < 2 and (low, high) != (0, 0) for axis, (low, high) in _borders(task).items()):
            return "pads other axes than height and width"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        rest = len(task.inputs) - 1
        return (blocked(self.lanes), *(PLAIN,) * rest), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, 2 * blocked(self.lanes).nbytes(task.output()), 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, y = buffers.inputs[0], buffers.outputs[0]
        assert x is not None and isinstance(task.op, Pad)
        borders, mode = _borders(task), task.op.mode
        *vertical, columns = (
            Taps.single(padded_places(np, int(size), borders.get(axis, (0, 0)), mode))
            for axis, size in enumerate(task.tensor(0).shape)
            if axis >= 2
        )
        rows = vertical[0] if vertical else Taps.same()
        places = Blocked.of(task.tensor(0), x), Blocked.of(task.output(), y)
        tapped = TappedRows(*places, rows.count, columns.count)
        return self.call(tapped.ir(), tapped.arrays(x, y, rows, columns), tapped.units)


def _borders(task: Task) -> dict[int, tuple[int, int]]:
    """Pixels before and behind each padded axis; fewer than none are cut off."""
    pads, axes = (task.known(index) for index in (1, 3))
    assert pads is not None
    which = None if axes is None else as_ints(axes)
    padded = pad_borders(as_ints(pads), which, task.output().rank)
    return {axis: (int(low), int(high)) for axis, low, high in padded}
