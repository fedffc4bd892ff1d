"""Batch normalization that no convolution took in: one multiply-add per element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import change_row
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.normalization import BatchNormalization

_PLAIN: Config = (("layout", "plain"),)
_BLOCKED: Config = (("layout", "blocked"),)


class NormalizeBatch(NativeKernel):
    """x times a factor plus an addend, both constant per channel, in either layout."""

    __slots__ = ()
    scheme = "normalize_batch"
    operators = (BatchNormalization,)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, BatchNormalization) or op.training_mode:
            return "no normalization by given statistics"
        if y.dtype != FLOAT32 or y.rank < 3 or not y.size:
            return f"{y} is not a picture of float32"
        known = [task.known(index) for index in range(1, 5)]
        if any(array is None or array.ndim != 1 for array in known):
            return "its statistics are not one constant per channel"
        return None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        return (_PLAIN, _BLOCKED) if is_picture(task.output()) else (_PLAIN,)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        layout = blocked(self.lanes) if config == _BLOCKED else PLAIN
        return (layout, *(PLAIN,) * 4), (layout,)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return (0,)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return (1, 2, 3, 4)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Factors and addends, filled up to whole blocks."""
        assert isinstance(task.op, BatchNormalization)
        known = (task.known(index) for index in range(1, 5))
        scale, bias, mean, var = (np.asarray(a, dtype=np.float64) for a in known)
        factor = scale / np.sqrt(var + task.op.epsilon)
        filled = np.zeros((2, -(-scale.size // self.lanes) * self.lanes), dtype=np.float32)
        filled[:, : scale.size] = factor, bias - mean * factor
        return (filled,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, y, (parameters,) = buffers.inputs[0], buffers.outputs[0], buffers.packed
        assert x is not None
        if config == _BLOCKED:
            places = Blocked.of(task.tensor(0), x), Blocked.of(task.output(), y)
        else:
            n, c, *spatial = y.shape
            places = (Blocked(n, c, 1, prod(spatial), 1, 0),) * 2
        kernel = _BatchNorm(self.lanes, *places)
        return self.call(kernel.ir(), [x, y, *parameters], kernel.units)


@dataclass(frozen=True, slots=True)
class _BatchNorm:
    """Everything that the code depends on; one unit is a row of a channel, or of a block."""

    lanes: int
    x: Blocked
    y: Blocked

    @property
    def units(self) -> int:
        return self.y.n * self.y.blocks * self.y.h

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        pointers = [f.argument("%args", index) for index in range(4)]
        f.loop("%end", lambda unit: self._row(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        rest, row = f.divide(unit, self.y.h)
        image, block = f.divide(rest, self.y.blocks)
        places = [f.at(pointer, f.mul(block, self.y.lanes)) for pointer in pointers[2:]]
        read = f.broadcast if self.y.lanes == 1 else f.load_vector
        factor, addend = map(read, places)
        change_row(
            f,
            (self.x, self.y),
            (pointers[0], pointers[1]),
            (image, block, row),
            lambda value: f.multiply_add(value, factor, addend),
        )
