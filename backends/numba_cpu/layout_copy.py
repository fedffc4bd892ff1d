"""Copies between layouts: plain or channel-blocked, with or without a halo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import shuffled
from mnnpy.backends.numba_cpu.moves import cleared_ends
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.backends.numba_cpu.strided_copy import exchanges
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.types import FLOAT32, Array, TensorType
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.fused import Copy


class LayoutCopy(NativeKernel):
    """One row of one channel (plain, a block of a single one) or of one block at a time."""

    __slots__ = ()
    scheme = "copy"
    operators = (Copy,)

    def reject(self, task: Task, device: Device) -> str | None:
        tensor = task.output()
        if tensor.dtype != FLOAT32 or tensor.rank not in (3, 4, 5):
            return f"{tensor} has no other layout"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (PLAIN,), (blocked(self.lanes),)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        tensor = task.output()
        source, target = (a if a.ndim > tensor.rank else a[..., None] for a in (x, y))
        if tensor.rank == 5:
            return self._volumes(tensor, source, target)
        copy = RowCopy(self.lanes, Blocked.of(tensor, source), Blocked.of(tensor, target))
        return self.call(copy.ir(), [x, y], copy.units)

    def _volumes(self, tensor: TensorType, x: Array, y: Array) -> NativeSequence:
        """One sample after the other."""
        source, target = (Blocked.of_volume(tensor, array[0]) for array in (x, y))
        copy = RowCopy(self.lanes, source, target)
        ir = copy.ir()
        calls = [self.call(ir, pair, copy.units) for pair in zip(x, y, strict=True)]
        return NativeSequence((*calls, *cleared_ends(self, y, target.halo)))


@dataclass(frozen=True, slots=True)
class RowCopy:
    """Everything that the code depends on."""

    lanes: int
    x: Blocked
    y: Blocked

    @property
    def step(self) -> int:
        """Channels of one unit."""
        return max(self.x.lanes, self.y.lanes)

    @property
    def units(self) -> int:
        return self.x.n * -(-self.x.c // self.step) * self.x.h

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, y = f.argument("%args", 0), f.argument("%args", 1)
        f.loop("%end", lambda unit: self._row(f, unit, x, y), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, x: Value, y: Value) -> None:
        rest, row = f.divide(unit, self.x.h)
        image, block = f.divide(rest, -(-self.x.c // self.step))
        channel = f.mul(block, self.step)
        source = row_start(f, x, self.x, image, f.divide(channel, self.x.lanes)[0], row)
        target = row_start(f, y, self.y, image, f.divide(channel, self.y.lanes)[0], row)
        if self.x.lanes == self.y.lanes:
            self._run(f, source, target)
        else:
            self._turn_block(f, source, target, block)
        if self.y.lanes == self.lanes:
            clear_halo(f, self.y, target, row)
        elif self.y.halo:
            count = f.minimum(self.step, f.sub(self.x.c, channel))
            f.loop(count, lambda k: self._clear_plain_halo(f, y, image, f.add(channel, k), row))

    def _run(self, f: Function, source: Value, target: Value) -> None:
        """A row of the same arrangement on both sides."""
        full, tail = divmod(self.x.w * self.x.lanes, f.lanes)

        def move(index: Value) -> None:
            place = f.mul(index, f.lanes)
            f.store_vector(f.load_vector(f.at(source, place)), f.at(target, place))

        if full:
            f.loop(full, move)
        if tail:
            place = str(full * f.lanes)
            f.store_lanes(f.load_lanes(f.at(source, place), tail), f.at(target, place), tail)

    def _turn_block(self, f: Function, source: Value, target: Value, block: Value) -> None:
        """A row of all channels of a block, the last of which may hold fewer."""
        whole, rest = divmod(self.x.c, self.step)
        if not (whole and rest):
            self._turn(f, source, target, rest or self.step)
            return
        last = f.compare("eq", block, whole)
        f.when(last, lambda: self._turn(f, source, target, rest))
        before = f.compare("ne", block, whole)
        f.when(before, lambda: self._turn(f, source, target, self.step))

    def _turn(self, f: Function, source: Value, target: Value, channels: int) -> None:
        """A row of so many channels, from rows of their own into a block or back: as many pixels
        as a vector has lanes are transposed in registers.
        """
        full, tail = divmod(self.x.w, f.lanes)
        if full:
            f.loop(
                full,
                lambda i: self._tile(f, source, target, channels, f.mul(i, f.lanes), f.lanes),
            )
        if tail:
            self._tile(f, source, target, channels, str(full * f.lanes), tail)

    def _tile(
        self, f: Function, source: Value, target: Value, channels: int, first: Value, pixels: int
    ) -> None:
        places, targets = (
            self._places(f, start, t, channels, first, pixels)
            for start, t in ((source, self.x), (target, self.y))
        )
        vectors = [f.load_lanes(*place) for place in places]
        vectors += [f.constant(0.0)] * (f.lanes - len(vectors))
        for row, other, *kept in exchanges(f.lanes):
            pair = vectors[row], vectors[other]
            vectors[row], vectors[other] = (shuffled(f, *pair, lanes) for lanes in kept)
        for vector, place in zip(vectors, targets, strict=False):
            f.store_lanes(vector, *place)

    @staticmethod
    def _places(
        f: Function, row: Value, t: Blocked, channels: int, first: Value, pixels: int
    ) -> list[tuple[Value, int]]:
        """Where a tile's vectors lie and how many lanes count: of pixels, or of runs of rows."""
        if t.lanes > 1:
            start = f.at(row, f.mul(first, t.lanes))
            return [(f.at(start, pixel * t.lanes), t.lanes) for pixel in range(pixels)]
        start = f.at(row, first)
        return [(f.at(start, channel * t.plane), pixels) for channel in range(channels)]

    def _clear_plain_halo(
        self, f: Function, y: Value, image: Value, channel: Value, row: Value
    ) -> None:
        """Zeros around a plain row."""
        t = self.y
        start = row_start(f, y, t, image, channel, row)
        zero = "0.0"

        def fill(begin: Value, count: int) -> Callable[[], object]:
            return lambda: f.loop(count, lambda i: f.store(zero, f.at(begin, i)))

        fill(f.at(start, -t.halo), t.halo)()
        fill(f.at(start, t.w), t.halo)()
        for edge, offset in ((0, -t.above * t.row), (t.h - 1, t.row)) if t.above else ():
            begin = f.at(start, offset - t.halo)
            f.when(f.compare("eq", row, edge), fill(begin, t.above * t.row))
