"""The base of generated kernels: what most of them answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnnpy.backends.numba_cpu.jit import Jit
from mnnpy.backends.numba_cpu.native import NativeCall
from mnnpy.runtime.contracts import Config, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.preinference.regions import is_anchored


@dataclass(frozen=True, slots=True)
class NativeKernel:
    """A way to generate code for a task; subclasses say for which, in which layouts, and how."""

    jit: Jit
    scheme: ClassVar[str]
    operators: ClassVar[tuple[type[Op], ...]]
    last_resort: ClassVar[bool] = False
    borrows: ClassVar[bool] = True

    @property
    def lanes(self) -> int:
        return self.jit.cpu.lanes

    def carries(self, region: Graph) -> bool:
        """Whether the kernel is for regions like this one: an anchor of its own, and a chain."""
        return isinstance(region.nodes[0].op, self.operators) and is_anchored(region)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        return ((),)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (PLAIN,) * len(task.inputs), (PLAIN,) * len(task.outputs)

    def work(self, task: Task, config: Config) -> Work:
        return Work(task.macs, task.nbytes, 1)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return 0

    def max_error(self, task: Task, config: Config) -> float:
        return 0.0

    def inplace(self, task: Task) -> tuple[int, ...]:
        return ()

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return ()

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        return ()

    def packing_config(self, config: Config) -> Config:
        """Everything but the height of tiles."""
        return tuple(entry for entry in config if entry[0] != "rows")

    def call(self, ir: str, arrays: Sequence[Array], units: int) -> NativeCall:
        """The compiled function ``run`` of a module, bound to arrays."""
        return NativeCall.bind(self.jit.address(ir, "run"), arrays, units)
