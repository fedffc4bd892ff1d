"""Pooling of channel-blocked tensors: the channels of a block in the lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import PLAIN, Buffers, Config, Device, Layout, Run, Task, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.ops.pooling import AveragePool, GlobalAveragePool, MaxPool
from mnnpy.runtime.ops.shape_math import Window


class PoolWindow(NativeKernel):
    """Maximum or mean of each window; what lies outside the input is left out."""

    __slots__ = ()
    scheme = "pool_window"
    operators = (MaxPool, AveragePool)

    def reject(self, task: Task, device: Device) -> str | None:
        op = task.op
        if not isinstance(op, MaxPool | AveragePool):
            return "no pool"
        if len(task.outputs) > 1:
            return "does not find where the maxima lie"
        if task.output().dtype != FLOAT32 or task.output().rank != 4 or not task.output().size:
            return f"{task.output()} is not a picture of float32"
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
    return task.op.window(task.tensor(0).shape[2:])


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

        def pixel(column: Value) -> None:
            first_s, last_s, left = self._range(f, column, 1, self.x.w)
            corner = f.at(f.at(source, f.mul(top, self.x.row)), f.mul(left, self.x.lanes))

            def line(r: Value, total: Value) -> list[Value]:
                start = f.at(corner, f.mul(r, self.x.row))

                def tap(s: Value, total: Value) -> list[Value]:
                    seen = f.load_vector(f.at(start, f.mul(s, self.x.lanes)))
                    if self.maximum:
                        return [f.largest(seen, total)]
                    return [f.arithmetic("fadd", seen, total)]

                return f.loop(last_s, tap, [(f.vector, total)], start=first_s)

            neutral = f.constant(float("-inf") if self.maximum else 0.0)
            (total,) = f.loop(last_r, line, [(f.vector, neutral)], start=first_r)
            if not self.maximum:
                count = self._count(f, first_r, last_r, first_s, last_s)
                total = f.arithmetic("fdiv", total, f.splat(count))
            f.store_vector(total, f.at(target, f.mul(column, self.y.lanes)))

        f.loop(self.y.w, pixel)
        clear_halo(f, self.y, target, row)

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
            number = f.mul(f.sub(r1, r0), f.sub(s1, s0))
        return f.emit(f"sitofp i64 {number} to float")


class PoolGlobal(NativeKernel):
    """Mean of every plane; the output is plain, which is what follows a network's last planes."""

    __slots__ = ()
    scheme = "pool_global"
    operators = (GlobalAveragePool,)

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, GlobalAveragePool):
            return "no global average"
        tensor = task.tensor(0)
        if tensor.dtype != FLOAT32 or tensor.rank != 4 or not tensor.size:
            return f"{tensor} is not a picture of float32"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (blocked(self.lanes),), (PLAIN,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        source = Blocked.of(task.tensor(0), x)
        return self.call(_global_mean(source), [x, y], source.n * source.blocks)


def _global_mean(x: Blocked) -> str:
    module = Module(x.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    source, target = f.argument("%args", 0), f.argument("%args", 1)

    def unit(index: Value) -> None:
        image, block = f.divide(index, x.blocks)
        plane = row_start(f, source, x, image, block, "0")

        def row(r: Value, total: Value) -> list[Value]:
            start = f.at(plane, f.mul(r, x.row))

            def pixel(q: Value, total: Value) -> list[Value]:
                seen = f.load_vector(f.at(start, f.mul(q, x.lanes)))
                return [f.arithmetic("fadd", seen, total)]

            return f.loop(x.w, pixel, [(f.vector, total)])

        (total,) = f.loop(x.h, row, [(f.vector, f.constant(0.0))])
        mean = f.arithmetic("fmul", total, f.constant(1 / (x.h * x.w)))
        place = f.at(f.at(target, f.mul(image, x.c)), f.mul(block, x.lanes))
        if x.last_channels == x.lanes:
            f.store_vector(mean, place)
            return
        last = f.compare("eq", block, x.blocks - 1)
        f.when(last, lambda: f.store_lanes(mean, place, x.last_channels))
        f.when(f.compare("ne", block, x.blocks - 1), lambda: f.store_vector(mean, place))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
