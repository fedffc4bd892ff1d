"""Layer, root mean square, instance and group normalization.

The statistics take a pass each over elements that are in cache: squares are those of centred
elements, so that a mean far from zero costs no digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import Line, Place, change_row, load_all, store_all, total
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.normalization import (
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    RMSNormalization,
)
from mnnpy.runtime.ops.shape_math import normalize_axis


class NormalizeRows(NativeKernel):
    """Layer and root mean square normalization: scale and bias lie along the row."""

    __slots__ = ()
    scheme = "normalize_rows"
    operators = (LayerNormalization, RMSNormalization)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, LayerNormalization | RMSNormalization):
            return "no normalization alone"
        if y.dtype != FLOAT32 or task.tensor(0).dtype != FLOAT32 or not y.size:
            return f"{y} is not float32, or empty"
        if op.stash_type != "float32":
            return f"statistics in {op.stash_type}"
        if len(task.outputs) > 1:
            return "gives no statistics"
        row = tuple(y.shape[normalize_axis(op.axis, y.rank) :])
        for value in task.inputs[1:]:
            if value is not None and _without_ones(value.shape) != _without_ones(row):
                return f"a parameter of shape {value.shape} is not one number for each of {row}"
        return None

    def work(self, task: Task, config: Config) -> Work:
        return Work(4 * task.output().size, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return (0,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        op, y = task.op, buffers.outputs[0]
        assert isinstance(op, LayerNormalization | RMSNormalization)
        x, *parameters = (a for a in buffers.inputs if a is not None)
        length = prod(y.shape[normalize_axis(op.axis, y.ndim) :])
        centred = isinstance(op, LayerNormalization)
        rows = _Rows(self.lanes, length, centred, op.epsilon, len(parameters) > 1)
        arrays = [x, y, *map(np.ascontiguousarray, parameters)]
        return self.call(rows.ir(), arrays, y.size // length)


def _without_ones(shape: Sequence[object]) -> tuple[object, ...]:
    return tuple(dim for dim in shape if dim != 1)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Everything that the code depends on; one unit is a row."""

    lanes: int
    length: int
    centred: bool
    epsilon: float
    biased: bool

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        x, y, *parameters = (f.argument("%args", index) for index in range(3 + self.biased))

        def unit(index: Value) -> None:
            start = f.mul(index, self.length)
            self._row(f, f.at(x, start), f.at(y, start), parameters)

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, x: Value, y: Value, parameters: Sequence[Value]) -> None:
        line = Line.row(self.lanes, self.length)
        mean, inverse = statistics(f, line, x, self.length, self.epsilon, self.centred)

        def finish(places: Sequence[Place]) -> None:
            found = [
                f.arithmetic("fmul", centre(f, value, mean), inverse)
                for value in load_all(f, x, places)
            ]
            scales, *biases = (load_all(f, pointer, places) for pointer in parameters)
            found = [f.arithmetic("fmul", v, s) for v, s in zip(found, scales, strict=True)]
            for bias in biases:
                found = [f.arithmetic("fadd", v, b) for v, b in zip(found, bias, strict=True)]
            store_all(f, found, y, places)

        line.each(f, finish)


class NormalizePlanes(NativeKernel):
    """Instance normalization of a blocked picture: channels in the lanes."""

    __slots__ = ()
    scheme = "normalize_planes"
    operators = (InstanceNormalization,)

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if not isinstance(task.op, InstanceNormalization):
            return "no normalization alone"
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size:
            return f"{y} is not a picture of float32"
        known = task.known(1), task.known(2)
        return "scale and bias are not constant" if any(a is None for a in known) else None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (blocked(self.lanes), PLAIN, PLAIN), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        return Work(4 * task.output().size, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return (0,)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return (1, 2)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Scales and biases, filled up to whole blocks."""
        channels = int(task.tensor(1).shape[0])
        filled = np.zeros((2, -(-channels // self.lanes) * self.lanes), dtype=np.float32)
        filled[0, :channels], filled[1, :channels] = task.known(1), task.known(2)
        return (filled,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        op, x, y = task.op, buffers.inputs[0], buffers.outputs[0]
        assert isinstance(op, InstanceNormalization) and x is not None
        source, target = Blocked.of(task.tensor(0), x), Blocked.of(task.output(), y)
        ir = _normalized_planes(source, target, op.epsilon)
        return self.call(ir, [x, y, *buffers.packed[0]], target.n * target.blocks)


def _normalized_planes(x: Blocked, y: Blocked, epsilon: float) -> str:
    module = Module(x.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
    source, target, scales, biases = (f.argument("%args", index) for index in range(4))

    def unit(index: Value) -> None:
        image, block = f.divide(index, y.blocks)
        plane = row_start(f, source, x, image, block, "0")
        mean, inverse = statistics(f, Line.plane(x), plane, x.h * x.w, epsilon, True)
        scale, bias = (f.load_vector(f.at(p, f.mul(block, y.lanes))) for p in (scales, biases))
        factor = f.arithmetic("fmul", inverse, scale)

        def change(value: Value) -> Value:
            return f.multiply_add(centre(f, value, mean), factor, bias)

        def row(index: Value) -> None:
            change_row(f, (x, y), (source, target), (image, block, index), change)

        f.loop(y.h, row)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


class NormalizeGroups(NativeKernel):
    """Group and instance normalization: scale and bias are one number per channel."""

    __slots__ = ()
    scheme = "normalize_groups"
    operators = (GroupNormalization, InstanceNormalization)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, GroupNormalization | InstanceNormalization):
            return "no normalization alone"
        if y.dtype != FLOAT32 or not y.size:
            return f"{y} is not float32, or empty"
        if isinstance(op, GroupNormalization) and op.stash_type != "float32":
            return f"statistics in {op.stash_type}"
        return None

    def work(self, task: Task, config: Config) -> Work:
        return Work(4 * task.output().size, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        return (0,)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        op, y = task.op, buffers.outputs[0]
        assert isinstance(op, GroupNormalization | InstanceNormalization)
        x, scale, bias = (np.ascontiguousarray(a) for a in buffers.inputs)
        channels, pixels = y.shape[1], prod(y.shape[2:])
        groups = op.num_groups if isinstance(op, GroupNormalization) else channels
        shared = channels // scale.size
        kernel = _Groups(self.lanes, groups, channels // groups, pixels, shared, op.epsilon)
        return self.call(kernel.ir(), [x, y, scale, bias], y.shape[0] * groups)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Everything that the code depends on; one unit is a group of channels of one image.

    Parameters
    ----------
    shared : channels that have one scale and bias together.
    """

    lanes: int
    groups: int
    channels: int
    pixels: int
    shared: int
    epsilon: float

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        x, y, scale, bias = (f.argument("%args", index) for index in range(4))
        length = self.channels * self.pixels

        def unit(index: Value) -> None:
            start = f.mul(index, length)
            row = Line.row(self.lanes, length)
            source, target = f.at(x, start), f.at(y, start)
            mean, inverse = statistics(f, row, source, length, self.epsilon, True)
            first = f.mul(f.divide(index, self.groups)[1], self.channels)

            def channel(k: Value) -> None:
                place = f.divide(f.add(first, k), self.shared)[0]
                # inverse and scale before the elements: both are the same for a whole channel.
                factor = f.arithmetic("fmul", inverse, f.broadcast(f.at(scale, place)))
                added = f.broadcast(f.at(bias, place))
                begin = f.mul(k, self.pixels)
                pair = f.at(source, begin), f.at(target, begin)
                self._channel(f, *pair, mean, factor, added)

            f.loop(self.channels, channel)

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _channel(
        self, f: Function, x: Value, y: Value, mean: Value | None, factor: Value, added: Value
    ) -> None:
        def finish(places: Sequence[Place]) -> None:
            found = [centre(f, value, mean) for value in load_all(f, x, places)]
            store_all(f, [f.multiply_add(value, factor, added) for value in found], y, places)

        Line.row(self.lanes, self.pixels).each(f, finish)


def statistics(
    f: Function, line: Line, x: Value, length: int, epsilon: float, centred: bool
) -> tuple[Value | None, Value]:
    """Mean (None unless centred) and 1 / standard deviation of a line, in every lane."""
    share = f.constant(1 / length)
    mean = None
    if centred:
        summed = line.fold(f, 0.0, lambda places: load_all(f, x, places), total)
        mean = f.arithmetic("fmul", summed, share)

    def squares(places: Sequence[Place]) -> list[Value]:
        values = [centre(f, value, mean) for value in load_all(f, x, places)]
        return [f.arithmetic("fmul", value, value) for value in values]

    square = f.arithmetic("fmul", line.fold(f, 0.0, squares, total), share)
    spread = f.intrinsic("sqrt", f.arithmetic("fadd", square, f.constant(epsilon)))
    return mean, f.arithmetic("fdiv", f.constant(1.0), spread)


def centre(f: Function, value: Value, mean: Value | None) -> Value:
    return value if mean is None else f.arithmetic("fsub", value, mean)
