"""Softmax and its logarithm along neighbouring axes of a plain tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import Place, PlainLines, load_all, store_all, total
from mnnpy.backends.numba_cpu.vector_math import exp_below, log
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.ops.reduction import LogSoftmax, Softmax


class SoftmaxLines(NativeKernel):
    """Three passes over a line in cache: its maximum, the exponentials and their sum, the scale."""

    __slots__ = ()
    scheme = "softmax_lines"
    operators = (Softmax, LogSoftmax)

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if not isinstance(task.op, Softmax | LogSoftmax):
            return "no softmax alone"
        return None if y.dtype == FLOAT32 and y.size else f"{y} is not float32, or empty"

    def work(self, task: Task, config: Config) -> Work:
        """An exponential takes about as long as twenty multiply-adds."""
        return Work(20 * task.output().size, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return () if self._lines(task).overlaps else (0,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        lines = self._lines(task)
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        kernel = _Softmax(lines, isinstance(task.op, LogSoftmax))
        return self.call(kernel.ir(), [x, y], lines.units)

    def _lines(self, task: Task) -> PlainLines:
        assert isinstance(task.op, Softmax | LogSoftmax)
        shape = [int(dim) for dim in task.output().shape]
        lines = PlainLines.along(self.lanes, shape, task.op.axes(len(shape)))
        assert lines is not None
        return lines


@dataclass(frozen=True, slots=True)
class _Softmax:
    """Everything that the code depends on."""

    lines: PlainLines
    logarithm: bool

    def ir(self) -> str:
        module = Module(self.lines.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        x, y = f.argument("%args", 0), f.argument("%args", 1)

        def unit(index: Value) -> None:
            outer, column = self.lines.place(f, index)
            starts = (self.lines.start(f, pointer, outer, column) for pointer in (x, y))
            self._line(f, *starts)

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _line(self, f: Function, x: Value, y: Value) -> None:
        """A NaN anywhere makes the sum one, whatever the maximum makes of it."""
        line = self.lines.line
        top = line.fold(f, float("-inf"), lambda places: load_all(f, x, places), Function.larger)

        def powers(places: Sequence[Place]) -> list[Value]:
            shifted = [f.arithmetic("fsub", v, top) for v in load_all(f, x, places)]
            found = [exp_below(f, value) for value in shifted]
            if not self.logarithm:
                store_all(f, found, y, places)
            return found

        amount = line.fold(f, 0.0, powers, total)
        if self.logarithm:
            lost = log(f, amount)

            def finish(places: Sequence[Place]) -> None:
                shifted = [f.arithmetic("fsub", v, top) for v in load_all(f, x, places)]
                store_all(f, [f.arithmetic("fsub", v, lost) for v in shifted], y, places)
        else:
            scale = f.arithmetic("fdiv", f.constant(1.0), amount)

            def finish(places: Sequence[Place]) -> None:
                scaled = [f.arithmetic("fmul", v, scale) for v in load_all(f, y, places)]
                store_all(f, scaled, y, places)

        line.each(f, finish)
