"""Reductions along neighbouring axes of a plain tensor, or over the pixels of a blocked one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import Combine, Line, Place, PlainLines, load_all, total
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops import reduction as red
from mnnpy.runtime.ops.pooling import GlobalAveragePool, GlobalMaxPool

Unary = Callable[[Function, Value], Value]


@dataclass(frozen=True, slots=True)
class _Reduction:
    """What is combined, of which neutral number; what is done to the result of ``count`` of it."""

    combine: Combine
    neutral: float
    before: Unary
    after: Callable[[Function, Value, int], Value]

    def fold(self, f: Function, line: Line, x: Value, count: int) -> Value:
        def values(places: Sequence[Place]) -> list[Value]:
            return [self.before(f, value) for value in load_all(f, x, places)]

        return self.after(f, line.fold(f, self.neutral, values, self.combine), count)


def _smallest(f: Function, a: Value, b: Value) -> Value:
    return f.intrinsic("minimum", a, b)


def _same(f: Function, value: Value, count: int = 0) -> Value:
    return value


def _size(f: Function, value: Value) -> Value:
    return f.intrinsic("fabs", value)


def _square(f: Function, value: Value) -> Value:
    return f.arithmetic("fmul", value, value)


def _mean(f: Function, value: Value, count: int) -> Value:
    return f.arithmetic("fmul", value, f.constant(1 / count))


def _root(f: Function, value: Value, count: int) -> Value:
    return f.intrinsic("sqrt", value)


_MAXIMUM = _Reduction(Function.largest, float("-inf"), _same, _same)
_AVERAGE = _Reduction(total, 0.0, _same, _mean)

_REDUCTIONS: dict[type[Op], _Reduction] = {
    red.ReduceSum: _Reduction(total, 0.0, _same, _same),
    red.ReduceMean: _AVERAGE,
    red.ReduceMax: _MAXIMUM,
    red.ReduceMin: _Reduction(_smallest, float("inf"), _same, _same),
    red.ReduceL1: _Reduction(total, 0.0, _size, _same),
    red.ReduceL2: _Reduction(total, 0.0, _square, _root),
    red.ReduceSumSquare: _Reduction(total, 0.0, _square, _same),
    GlobalAveragePool: _AVERAGE,
    GlobalMaxPool: _MAXIMUM,
}


def _axes(task: Task) -> tuple[int, ...] | None:
    """Reduced axes of more than one element; None where only the run decides them."""
    shape = task.tensor(0).shape
    if not isinstance(task.op, red.Reduce):
        reduced: Sequence[int] = range(2, len(shape))
    else:
        given = task.inputs[1] if len(task.inputs) > 1 else None
        if given is not None and not given.constant:
            return None
        reduced = task.op.axes(() if given is None else given.ints(), len(shape))
    return tuple(axis for axis in sorted(reduced) if shape[axis] != 1)


class ReduceLines(NativeKernel):
    """Sums, means and extremes along lines: rows, columns, or everything."""

    __slots__ = ()
    scheme = "reduce_lines"
    operators = tuple(_REDUCTIONS)

    def reject(self, task: Task, device: Device) -> str | None:
        x = task.tensor(0)
        if type(task.op) not in _REDUCTIONS:
            return "more than a reduction"
        if x.dtype != FLOAT32 or not x.size:
            return f"{x} is not float32, or empty"
        axes = _axes(task)
        if axes is None:
            return "its axes are not constant"
        lines = PlainLines.along(self.lanes, _shape(task), axes)
        return None if lines else f"other axes lie between the axes {axes}"

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, y, axes = buffers.inputs[0], buffers.outputs[0], _axes(task)
        assert x is not None and axes is not None
        lines = PlainLines.along(self.lanes, _shape(task), axes)
        assert lines is not None
        ir = _reduced_lines(lines, _REDUCTIONS[type(task.op)])
        return self.call(ir, [x, y], lines.units)


def _shape(task: Task) -> list[int]:
    return [int(dim) for dim in task.tensor(0).shape]


def _reduced_lines(lines: PlainLines, reduction: _Reduction) -> str:
    module = Module(lines.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    x, y = f.argument("%args", 0), f.argument("%args", 1)
    line = lines.line

    def unit(index: Value) -> None:
        outer, column = lines.place(f, index)
        start = lines.start(f, x, outer, column)
        result = reduction.fold(f, line, start, lines.length)
        target = f.at(f.at(y, f.mul(outer, lines.inner)), column)
        f.store_lanes(result, target, line.result_count)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


class ReducePlanes(NativeKernel):
    """The pixels of every plane; the output is plain, which is what follows the last planes."""

    __slots__ = ()
    scheme = "pool_global"
    operators = tuple(_REDUCTIONS)

    def reject(self, task: Task, device: Device) -> str | None:
        x = task.tensor(0)
        if type(task.op) not in _REDUCTIONS:
            return "more than a reduction"
        if x.dtype != FLOAT32 or not is_picture(x) or not x.size:
            return f"{x} is not a picture of float32"
        pixels = tuple(axis for axis in range(2, x.rank) if x.shape[axis] != 1)
        return None if _axes(task) == pixels else "reduces other axes than those of the pixels"

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        rest = len(task.inputs) - 1
        return (blocked(self.lanes), *(PLAIN,) * rest), (PLAIN,)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, y = buffers.inputs[0], buffers.outputs[0]
        assert x is not None
        source = Blocked.of(task.tensor(0), x)
        ir = _reduced_planes(source, _REDUCTIONS[type(task.op)])
        return self.call(ir, [x, y], source.n * source.blocks)


def _reduced_planes(x: Blocked, reduction: _Reduction) -> str:
    module = Module(x.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    source, target = f.argument("%args", 0), f.argument("%args", 1)

    def unit(index: Value) -> None:
        image, block = f.divide(index, x.blocks)
        plane = row_start(f, source, x, image, block, "0")
        result = reduction.fold(f, Line.plane(x), plane, prod((x.h, x.w)))
        place = f.at(f.at(target, f.mul(image, x.c)), f.mul(block, x.lanes))
        if x.last_channels == x.lanes:
            f.store_vector(result, place)
            return
        last = f.compare("eq", block, x.blocks - 1)
        f.when(last, lambda: f.store_lanes(result, place, x.last_channels))
        f.when(f.compare("ne", block, x.blocks - 1), lambda: f.store_vector(result, place))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
