"""Transposes between channel-blocked pictures and plain tensors whose last axis is the channels.

Both hold the channels of a pixel side by side, so that a block of them moves as one vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.shaping import Transpose

_FROM_BLOCKS: Config = (("blocked", "input"),)
_TO_BLOCKS: Config = (("blocked", "output"),)


class TransposeBlocks(NativeKernel):
    """(n, c, ...) in blocks to (n, ..., c), and back."""

    __slots__ = ()
    scheme = "transpose_blocks"
    operators = (Transpose,)

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size:
            return f"{y} is not a picture of float32"
        return None if self.configs(task, device) else "moves other axes than that of channels"

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        assert isinstance(task.op, Transpose)
        rank = task.output().rank
        axes, inner = task.op.axes(rank), tuple(range(2, rank))
        orders = {_FROM_BLOCKS: (0, *inner, 1), _TO_BLOCKS: (0, rank - 1, *range(1, rank - 1))}
        return [config for config, order in orders.items() if axes == order]

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        pair = (blocked(self.lanes),), (PLAIN,)
        return pair if config == _FROM_BLOCKS else pair[::-1]

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        if config == _FROM_BLOCKS:
            copy = _PixelCopy(Blocked.of(task.tensor(0), x), False)
        else:
            copy = _PixelCopy(Blocked.of(task.output(), y), True)
        picture = copy.picture
        return self.call(copy.ir(), [x, y], prod((picture.n, picture.h, picture.blocks)))


@dataclass(frozen=True, slots=True)
class _PixelCopy:
    """Everything that the code depends on; one unit is a row of one block.

    Parameters
    ----------
    picture : the side that is blocked.
    written : whether that is the output.
    """

    picture: Blocked
    written: bool

    def ir(self) -> str:
        module = Module(self.picture.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, y = f.argument("%args", 0), f.argument("%args", 1)
        f.loop("%end", lambda unit: self._row(f, unit, x, y), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, x: Value, y: Value) -> None:
        t = self.picture
        rest, block = f.divide(unit, t.blocks)
        image, row = f.divide(rest, t.h)
        blocks, pixels = (y, x) if self.written else (x, y)
        start = row_start(f, blocks, t, image, block, row)
        pixels = f.at(f.at(pixels, f.mul(rest, t.w * t.c)), f.mul(block, t.lanes))

        def move(count: int) -> None:
            def pixel(index: Value) -> None:
                pair = f.at(start, f.mul(index, t.lanes)), f.at(pixels, f.mul(index, t.c))
                target, source = pair if self.written else pair[::-1]
                f.store_lanes(f.load_lanes(source, count), target, count)

            f.loop(t.w, pixel)

        if t.last_channels == t.lanes:
            move(t.lanes)
        else:
            last = f.compare("eq", block, t.blocks - 1)
            f.when(last, lambda: move(t.last_channels))
            f.when(f.compare("ne", block, t.blocks - 1), lambda: move(t.lanes))
        if self.written:
            clear_halo(f, t, start, row)
