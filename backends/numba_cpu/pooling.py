"""Pooling of channel-blocked tensors: the channels of a block in the lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import is_picture, picture_window
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.layouts import Layout
from mnnpy.runtime.ops.pooling import AveragePool, MaxPool
from mnnpy.runtime.ops.shape_math import Window


class PoolWindow(NativeKernel):
    """Maximum or mean of each window; what lies outside the input is left out."""

    __slots__ = ()
    scheme = "pool_window"
    operators = (MaxPool, AveragePool)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, MaxPool | AveragePool):
            return "no pool"
        if len(task.outputs) > 1:
            return "does not find where the maxima lie"
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size:
            return f"{y} is not a picture of float32"
        if max(_window(task).dilations) > 1:
            return "dilated"
        if isinstance(op, AveragePool) and op.count_include_pad and op.ceil_mode:
            return "padding counts, but not what ceil mode adds"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (blocked(self.lanes),), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        taps = int(np.prod(_window(task).kernel))
        return Work(task.output().size * taps, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        pool = _Pool(
            Blocked.of(task.tensor(0), x),
            Blocked.of(task.output(), y),
            _window(task),
            isinstance(task.op, MaxPool),
            isinstance(task.op, AveragePool) and bool(task.op.count_include_pad),
        )
        return self.call(pool.ir(), [x, y], pool.y.n * pool.y.blocks * pool.y.h)


def _window(task: Task) -> Window:
    assert isinstance(task.op, MaxPool | AveragePool)
    return picture_window(task.op.window(task.tensor(0).shape[2:]))


@dataclass(frozen=True, slots=True)
class _Pool:
    """Everything that the code depends on; one unit is a row of one channel block."""

    x: Blocked
    y: Blocked
    window: Window
    maximum: bool
    padding_counts: bool

    def ir(self) -> str:
        module = Module(self.y.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, y = f.argument("%args", 0), f.argument("%args", 1)
        f.loop("%end", lambda unit: self._row(f, unit, x, y), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, x: Value, y: Value) -> None:
        rest, row = f.divide(unit, self.y.h)
        image, block = f.divide(rest, self.y.blocks)
        source = row_start(f, x, self.x, image, block, "0")
        target = row_start(f, y, self.y, image, block, row)
        first_r, last_r, top = self._range(f, row, 0, self.x.h)
        lines = f.at(source, f.mul(top, self.x.row))

        def put(column: Value, pixel: Value) -> None:
            f.store_vector(pixel, f.at(target, f.mul(column, self.y.lanes)))

        def cut(column: Value) -> None:
            put(column, self._cut_window(f, lines, first_r, last_r, column))

        def whole(column: Value) -> None:
            put(column, self._whole_window(f, lines, column))

        left, right = self._whole_columns
        missing = f.sub(f.sub(last_r, first_r), self.window.kernel[0])
        if left < right:
            within = f.compare("eq", missing, 0)
            f.when(within, lambda: f.loop(str(left), cut))
            f.when(within, lambda: f.loop(str(right), whole, start=str(left)))
            f.when(within, lambda: f.loop(str(self.y.w), cut, start=str(right)))
            f.when(f.compare("ne", missing, 0), lambda: f.loop(str(self.y.w), cut))
        else:
            f.loop(self.y.w, cut)
        clear_halo(f, self.y, target, row)

    @property
    def _whole_columns(self) -> tuple[int, int]:
        """Columns, from and up to, whose window does not leave the input on either side."""
        stride, begin = self.window.strides[1], int(self.window.begin[1])
        fit = (self.x.w + begin - self.window.kernel[1]) // stride + 1
        return -(-begin // stride), min(self.y.w, fit)

    def _whole_window(self, f: Function, lines: Value, column: Value) -> Value:
        """The result of a window that lies inside the input."""
        left = f.sub(f.mul(column, self.window.strides[1]), int(self.window.begin[1]))
        corner = f.at(lines, f.mul(left, self.x.lanes))
        height, width = self.window.kernel
        total = f.load_vector(corner)
        for tap in range(1, height * width):
            r, s = divmod(tap, width)
            total = self._add(
                f, f.load_vector(f.at(corner, r * self.x.row + s * self.x.lanes)), total
            )
        return total if self.maximum else self._mean(f, total, str(float(height * width)))

    def _cut_window(
        self, f: Function, lines: Value, first_r: Value, last_r: Value, column: Value
    ) -> Value:
        """The result of a window of which some may lie outside."""
        first_s, last_s, left = self._range(f, column, 1, self.x.w)
        corner = f.at(lines, f.mul(left, self.x.lanes))

        def line(r: Value, total: Value) -> list[Value]:
            start = f.at(corner, f.mul(r, self.x.row))

            def tap(s: Value, total: Value) -> list[Value]:
                return [self._add(f, f.load_vector(f.at(start, f.mul(s, self.x.lanes))), total)]

            return f.loop(last_s, tap, [(f.vector, total)], start=first_s)

        neutral = f.constant(float("-inf") if self.maximum else 0.0)
        (total,) = f.loop(last_r, line, [(f.vector, neutral)], start=first_r)
        if self.maximum:
            return total
        return self._mean(f, total, self._count(f, first_r, last_r, first_s, last_s))

    def _add(self, f: Function, seen: Value, total: Value) -> Value:
        return f.largest(seen, total) if self.maximum else f.arithmetic("fadd", seen, total)

    @staticmethod
    def _mean(f: Function, total: Value, count: Value) -> Value:
        return f.arithmetic("fdiv", total, f.splat(count))

    def _range(self, f: Function, place: Value, axis: int, size: int) -> tuple[Value, Value, Value]:
        """First and last tap inside the input, and where the window starts (maybe outside)."""
        start = f.sub(f.mul(place, self.window.strides[axis]), int(self.window.begin[axis]))
        first = f.maximum("0", f.sub(0, start))
        last = f.minimum(str(self.window.kernel[axis]), f.sub(size, start))
        return first, last, start

    def _count(self, f: Function, r0: Value, r1: Value, s0: Value, s1: Value) -> Value:
        if self.padding_counts:
            number: Value = str(int(np.prod(self.window.kernel)))
        else:
            # Of a window in the padding nothing counts: 0 / 0, as the reference says.
            number = f.mul(*(f.maximum(0, f.sub(*ends)) for ends in ((r1, r0), (s1, s0))))
        return f.emit(f"sitofp i64 {number} to float")
