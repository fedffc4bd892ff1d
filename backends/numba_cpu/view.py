"""Reshaping without moving, as a step that takes no time in the middle of a native program."""

from __future__ import annotations

import numpy as np

from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.moves import ITEMSIZES, moved
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.op import Op
from mnnpy.schemes.view import View


class ViewInPlace(NativeKernel):
    """Nothing to do where memory planning made the output a view; a copy where it could not."""

    __slots__ = ()
    scheme = "view"
    operators = (Op,)
    borrows = False

    def reject(self, task: Task, device: Device) -> str | None:
        return View().reject(task)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, 0, 0)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        if 0 in buffers.aliased:
            return NativeSequence(())
        if task.output().dtype.itemsize not in ITEMSIZES:
            return View().bind(np, task, config, buffers)
        return moved(self, View().pairs(task, buffers))
