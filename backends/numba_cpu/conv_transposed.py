"""Transposed convolution as direct convolutions: one for every place of an output in a stride.

Outputs that lie equally within a stride read the same taps of neighbouring inputs, so that they are
a convolution of stride one with those taps, whose results are stored a stride apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.convolutions import (
    aligned_floats,
    epilogue_of,
    pack_bias,
    pack_weights,
    unfit_convolution,
)
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import picture_shape, picture_window
from mnnpy.backends.numba_cpu.products import Terms, product_tile
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.convolution import ConvTranspose
from mnnpy.runtime.ops.shape_math import Window
from mnnpy.runtime.preinference.regions import split_anchored

_MOST_PHASES = 16
"""Convolutions in one kernel: each is code of its own."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Along one axis the outputs ``index``, ``index + stride``, ...

    Parameters
    ----------
    place : of these outputs within a stride, before the padding is cut off.
    taps : of the kernel, in the order of the inputs that they meet.
    first : input that the first tap meets at output ``index``; may lie outside.
    step : inputs from one tap to the next.
    count : outputs.
    """

    index: int
    place: int
    taps: tuple[int, ...]
    first: int
    step: int
    count: int

    def halo(self, size: int) -> int:
        """Border that the taps reach into, of an axis of ``size`` inputs."""
        last = self.first + (len(self.taps) - 1) * self.step + self.count - 1
        return max(0, -self.first, last - (size - 1))


def _phases(task: Task) -> tuple[list[Phase], ...]:
    """Phases along height and width; without taps where a dilation or small kernel skips some."""
    window, found = _window(task), []
    for axis in (0, 1):
        stride, dilation = window.strides[axis], window.dilations[axis]
        output, phases = int(window.output[axis]), []
        for index in range(min(stride, output)):
            before = index + int(window.begin[axis])
            taps = _taps(window, axis, before % stride)
            first, *others = [(before - tap * dilation) // stride for tap in taps] or [0]
            step = others[0] - first if others else 1
            count = len(range(index, output, stride))
            phases.append(Phase(index, before % stride, taps, first, step, count))
        found.append(phases)
    return tuple(found)


def _window(task: Task) -> Window:
    op = task.op
    assert isinstance(op, ConvTranspose)
    shape, w = task.tensor(0).shape, task.tensor(1).shape
    return picture_window(op.window(shape[2:], w[2:]))  # type: ignore[arg-type]


def _taps(window: Window, axis: int, place: int) -> tuple[int, ...]:
    """Taps that outputs at a place of a stride meet, in the order of the inputs."""
    stride, dilation = window.strides[axis], window.dilations[axis]
    taps = reversed(range(window.kernel[axis]))
    return tuple(tap for tap in taps if (place - tap * dilation) % stride == 0)


class ConvTransposedDirect(NativeKernel):
    """Any kernel, stride, dilation and padding, one group; bias and epilogue inside the store."""

    __slots__ = ()
    scheme = "conv_transposed"
    operators = (ConvTranspose,)

    def reject(self, task: Task, device: Device) -> str | None:
        anchored = split_anchored(task)
        reason = unfit_convolution(task, anchored)
        if reason is not None:
            return reason
        op = anchored.task.op
        if not isinstance(op, ConvTranspose) or op.group > 1:
            return "more than one group"
        if prod(_window(anchored.task).strides) > _MOST_PHASES:
            return f"more than {_MOST_PHASES} places of an output in a stride"
        skipped = any(not phase.taps for axis in _phases(anchored.task) for phase in axis)
        return "some outputs meet no tap of the kernel" if skipped else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        _, horizontal = _phases(split_anchored(task).task)
        rows, _ = choose_tile(device, self.lanes, horizontal[0].count, 1, (1,))
        return ((("rows", rows),),)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        anchored = split_anchored(task)
        sizes = picture_shape(anchored.task.tensor(0).shape)[2:]
        halo = max(
            phase.halo(size)
            for axis, size in zip(_phases(anchored.task), sizes, strict=True)
            for phase in axis
        )
        inputs = [PLAIN] * len(task.inputs)
        for position in epilogue_of(task, anchored).added:
            inputs[position] = blocked(self.lanes)
        inputs[anchored.source] = blocked(self.lanes, halo)
        return tuple(inputs), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        anchored = split_anchored(task)
        n, c = (int(size) for size in anchored.task.tensor(0).shape[:2])
        filled = -(-int(anchored.task.tensor(1).shape[1]) // self.lanes) * self.lanes
        # Taps that meet nothing but the halo are multiplied as well.
        met = prod(sum(p.count * len(p.taps) for p in axis) for axis in _phases(anchored.task))
        return Work(met * n * c * filled, task.nbytes, 1)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        anchored = split_anchored(task)
        return tuple(p for p in (anchored.positions[1], anchored.bias) if p is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """The bias, then the weights for every place in a stride, whether outputs have it or not:
        what is packed may not depend on the input's size.
        """
        anchored = split_anchored(task)
        bias = None if anchored.bias is None else task.known(anchored.bias)
        w = anchored.task.known(1)
        assert w is not None
        window = _window(anchored.task)
        outputs_first = w.swapaxes(0, 1).reshape(w.shape[1], w.shape[0], *window.kernel)
        vertical, horizontal = (
            [_taps(window, axis, place) for place in range(window.strides[axis])] for axis in (0, 1)
        )
        parts = [
            outputs_first[(slice(None), slice(None), *np.ix_(a, b))]
            for a in vertical
            for b in horizontal
        ]
        weights = (
            pack_weights(part, self.lanes, self.lanes) if part.size else aligned_floats((0,))
            for part in parts
        )
        return pack_bias(bias, w.shape[1], self.lanes), *weights

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored = split_anchored(task)
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        kernel = _Transposed(
            Blocked.of(anchored.task.tensor(0), x),
            Blocked.of(task.output(), y),
            tuple(Blocked.of(task.output(), a) for a in added),
            epilogue,
            _phases(anchored.task),
            int(dict(config)["rows"]),
        )
        bias, *packed = buffers.packed
        across, (vertical, horizontal) = _window(anchored.task).strides[1], kernel.phases
        weights = [packed[a.place * across + b.place] for a in vertical for b in horizontal]
        return self.call(kernel.ir(), [x, y, bias, *added, *weights], kernel.units)


@dataclass(frozen=True, slots=True)
class _Transposed:
    """Everything that the code depends on; one unit is a row of outputs of one channel block."""

    x: Blocked
    y: Blocked
    residuals: tuple[Blocked, ...]
    epilogue: Epilogue
    phases: tuple[list[Phase], ...]
    rows: int

    @property
    def units(self) -> int:
        return self.y.n * self.y.blocks * self.y.h

    def ir(self) -> str:
        module = Module(self.y.lanes)
        vertical, horizontal = self.phases
        for a in vertical:
            for b in horizontal:
                self._add_tiles(module, a, b)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        count = 3 + len(self.residuals) + len(vertical) * len(horizontal)
        pointers = [f.argument("%args", index) for index in range(count)]
        f.loop("%end", lambda unit: self._row(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _add_tiles(self, module: Module, a: Phase, b: Phase) -> None:
        x, stride = self.x, len(self.phases[1])
        vertical = tuple(index * a.step * x.row for index in range(len(a.taps)))
        horizontal = tuple(index * b.step * x.lanes for index in range(len(b.taps)))
        terms = Terms(x.blocks, x.plane, x.lanes, x.last_channels, (vertical, horizontal), x.lanes)

        def finish(f: Function, total: Value, row: int, v: int) -> Value:
            operands = tuple(
                f.load_vector(f.at(f"%r{index}", row * stride * r.lanes))
                for index, r in enumerate(self.residuals)
            )
            return self.epilogue.apply(f, total, operands)

        names = [f"r{index}" for index in range(len(self.residuals))]
        for rows in self._heights(b):
            pitch = (stride * self.y.lanes, self.y.plane)
            product_tile(module, _name(a, b, rows), rows, 1, terms, pitch, True, finish, names)

    def _heights(self, b: Phase) -> list[int]:
        """Of the tiles of one row."""
        full, tail = divmod(b.count, self.rows)
        return sorted({self.rows if full else 0, tail} - {0})

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        y, (vertical, horizontal) = self.y, self.phases
        x, target, bias = pointers[:3]
        added, weights = pointers[3 : 3 + len(self.residuals)], pointers[3 + len(self.residuals) :]
        rest, row = f.divide(unit, y.h)
        image, block = f.divide(rest, y.blocks)
        turn, place = f.divide(row, len(vertical))
        plane = f.at(f.at(x, f.mul(image, self.x.image)), self.x.origin)
        source = f.at(plane, f.mul(turn, self.x.row))
        bias = f.at(bias, f.mul(block, y.lanes))
        targets = [
            row_start(f, pointer, t, image, block, row)
            for pointer, t in zip((target, *added), (y, *self.residuals), strict=True)
        ]

        def outputs(a: Phase) -> None:
            begin = f.at(source, a.first * self.x.row)
            for b, phase_weights in zip(
                horizontal, weights[a.index * len(horizontal) :], strict=False
            ):
                panel = len(a.taps) * len(b.taps) * self.x.c * y.lanes
                w = f.at(phase_weights, f.mul(block, panel))
                self._tiles(f, a, b, (f.at(begin, b.first * self.x.lanes), w, bias), targets)

        for a in vertical:
            f.when(f.compare("eq", place, a.index), lambda a=a: outputs(a))  # type: ignore[misc]
        clear_halo(f, y, targets[0], row)

    def _tiles(
        self,
        f: Function,
        a: Phase,
        b: Phase,
        sources: tuple[Value, Value, Value],
        targets: Sequence[Value],
    ) -> None:
        """The outputs of one phase in one row."""
        (x, w, bias), stride = sources, len(self.phases[1])

        def tile(rows: int, index: Value) -> None:
            first = f.mul(index, self.rows)
            moved = f.add(f.mul(first, stride * self.y.lanes), b.index * self.y.lanes)
            arguments = [f.at(x, f.mul(first, self.x.lanes)), w, bias]
            arguments += [f.at(pointer, moved) for pointer in targets]
            f.call(_name(a, b, rows), *(("ptr", argument) for argument in arguments))

        full, tail = divmod(b.count, self.rows)
        if full:
            f.loop(full, lambda index: tile(self.rows, index))
        if tail:
            tile(tail, str(full))


def _name(a: Phase, b: Phase, rows: int) -> str:
    return f"tile{a.index}_{b.index}_{rows}"
