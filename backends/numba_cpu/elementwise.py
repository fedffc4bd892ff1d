"""Elementwise operators on tensors of one shape, row by row, in either layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.epilogues import apply_elementwise, elementwise_parameters
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import PLAIN, Buffers, Config, Device, Layout, Run, Task
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew

_CHUNK = 4096
"""Elements of one unit of a plain tensor."""

_BLOCKED: Config = (("layout", "blocked"),)
_FLAT: Config = (("layout", "plain"),)


class ElementwiseVectors(NativeKernel):
    """One pass; activations with constant parameters, sums, products, quotients."""

    __slots__ = ()
    scheme = "elementwise"
    operators = (
        *(act.Relu, act.Clip, act.LeakyRelu, act.HardSigmoid, act.HardSwish),
        *(ew.Add, ew.Sub, ew.Mul, ew.Div),
    )

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if y.dtype != FLOAT32 or not y.size:
            return f"{y} is not float32 with something in it"
        if isinstance(task.op, ew.Binary):
            same = all(value is not None and value.tensor == y for value in task.inputs)
            known = any(value is not None and value.constant for value in task.inputs)
            return None if same and not known else "inputs are broadcast or constant"
        reason = elementwise_parameters(task)
        return reason if isinstance(reason, str) else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        return (_FLAT, _BLOCKED) if task.output().rank == 4 else (_FLAT,)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        layout = blocked(self.lanes) if config == _BLOCKED else PLAIN
        moved = self._moved(task)
        inputs = tuple(layout if index < moved else PLAIN for index in range(len(task.inputs)))
        return inputs, (layout,)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return tuple(range(self._moved(task)))

    @staticmethod
    def _moved(task: Task) -> int:
        """How many inputs are tensors of the output's shape; the others are parameters."""
        return 2 if isinstance(task.op, ew.Binary) else 1

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        y = buffers.outputs[0]
        inputs = [x for x in buffers.inputs[: self._moved(task)] if x is not None]
        parameters = elementwise_parameters(task)
        assert not isinstance(parameters, str)
        if config == _BLOCKED:
            tensors = tuple(Blocked.of(task.output(), a) for a in (y, *inputs))
            units = tensors[0].n * tensors[0].blocks * tensors[0].h
        else:
            row = Blocked(1, 1, 1, task.output().size, 1, 0)
            tensors, units = (row,) * (1 + len(inputs)), -(-task.output().size // _CHUNK)
        kernel = _Elementwise(self.lanes, task.op, parameters, tensors)
        return self.call(kernel.ir(), [y, *inputs], units)


@dataclass(frozen=True, slots=True)
class _Elementwise:
    """Everything that the code depends on; tensors are the output, then the inputs."""

    lanes: int
    op: Op
    parameters: tuple[float | None, ...]
    tensors: tuple[Blocked, ...]

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        pointers = [f.argument("%args", index) for index in range(len(self.tensors))]
        unit = self._chunk if self.tensors[0].lanes == 1 else self._row
        f.loop("%end", lambda index: unit(f, index, pointers), start="%begin")
        f.finish()
        return str(module)

    def _chunk(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        size = self.tensors[0].w
        start = f.mul(unit, _CHUNK)
        moved = [f.at(pointer, start) for pointer in pointers]
        full = f.divide(f.minimum(_CHUNK, f.sub(size, start)), self.lanes)[0]
        f.loop(full, lambda index: self._vector(f, moved, f.mul(index, self.lanes), self.lanes))
        tail = size % self.lanes
        if tail:
            last = f.compare("eq", unit, (size - 1) // _CHUNK)
            place = f.mul(full, self.lanes)
            f.when(last, lambda: self._vector(f, moved, place, tail))

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        y = self.tensors[0]
        rest, row = f.divide(unit, y.h)
        image, block = f.divide(rest, y.blocks)
        moved = [
            row_start(f, pointer, t, image, block, row)
            for pointer, t in zip(pointers, self.tensors, strict=True)
        ]
        f.loop(y.w, lambda pixel: self._vector(f, moved, f.mul(pixel, y.lanes), y.lanes))
        clear_halo(f, y, moved[0], row)

    def _vector(self, f: Function, pointers: Sequence[Value], place: Value, count: int) -> None:
        target, *sources = (f.at(pointer, place) for pointer in pointers)
        values = [f.load_lanes(source, count) for source in sources]
        f.store_lanes(apply_elementwise(f, self.op, values, self.parameters), target, count)
