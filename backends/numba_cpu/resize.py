"""Resizing of channel-blocked pictures: what an axis needs of its input is in a table.

Along one axis a resize is a matrix, whose columns are what the reference makes of unit vectors. Its
rows hold few numbers: taps, which are read from the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import is_picture
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.resize import Resize, ResizedAxis

_COLUMNS = 256
"""Unit vectors that are resized at once: what bounds the memory of a table in the making."""


class ResizePlanes(NativeKernel):
    """Nearest, linear and cubic along height and width, a row of a block of channels at a time."""

    __slots__ = ()
    scheme = "resize_planes"
    operators = (Resize,)

    def reject(self, task: Task, device: Device) -> str | None:
        op, y = task.op, task.output()
        if not isinstance(op, Resize):
            return "no resize alone"
        if y.dtype != FLOAT32 or not is_picture(y) or not y.size or not task.tensor(0).size:
            return f"{y} is not a picture of float32"
        if any(value is not None and not value.constant for value in task.inputs[1:]):
            return "its scales are not constant"
        if op.coordinate_transformation_mode == "tf_crop_and_resize":
            return "crops"
        if op.keep_aspect_ratio_policy != "stretch":
            return "keeps the aspect ratio"
        if any(axis.axis < 2 for axis in _resized(task)):
            return "resizes other axes than height and width"
        return None

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        rest = len(task.inputs) - 1
        return (blocked(self.lanes), *(PLAIN,) * rest), (blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        assert isinstance(task.op, Resize)
        taps = {"nearest": 1, "linear": 4, "cubic": 16}[task.op.mode]
        return Work(task.output().size * taps, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, y = buffers.inputs[0], buffers.outputs[0]
        assert x is not None
        *vertical, columns = (_taps(task, axis) for axis in range(2, task.output().rank))
        rows = vertical[0] if vertical else Taps.same()
        places = Blocked.of(task.tensor(0), x), Blocked.of(task.output(), y)
        tapped = TappedRows(*places, rows.count, columns.count)
        return self.call(tapped.ir(), tapped.arrays(x, y, rows, columns), tapped.units)


def _resized(task: Task) -> list[ResizedAxis]:
    """Axes that change, of constant scales or sizes."""
    assert isinstance(task.op, Resize)
    scales, sizes = (task.known(index) for index in (2, 3))
    return task.op.resized_axes(
        task.tensor(0).shape,
        None,
        scales.tolist() if scales is not None and scales.size else None,
        sizes.tolist() if sizes is not None else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """For each output pixel of an axis the input pixels (int64) and their weights (float32)."""

    places: Array
    weights: Array

    @staticmethod
    def same() -> Taps:
        """Of an axis of one pixel."""
        return Taps.single(np.zeros(1))

    @staticmethod
    def single(places: Array) -> Taps:
        """One pixel for each."""
        return Taps(places.astype(np.int64)[:, None], np.ones((places.size, 1), dtype=np.float32))

    @property
    def count(self) -> int:
        return int(self.places.shape[1])


def _taps(task: Task, axis: int) -> Taps:
    """The matrix of an axis, sparse; rows of fewer taps are filled up with weights of zero."""
    op = task.op
    assert isinstance(op, Resize)
    sizes = [int(tensor.shape[axis]) for tensor in (task.tensor(0), task.output())]
    along = next((entry for entry in _resized(task) if entry.axis == axis), None)
    alone = replace(op, axes=(0,))
    by_scale = task.known(3) is None
    scale = np.array([1.0 if along is None else along.scale])
    rows, columns, weights = [], [], []
    for start in range(0, sizes[0], _COLUMNS):
        unit = np.eye(sizes[0], min(_COLUMNS, sizes[0] - start), -start)
        (part,) = alone.reference(
            np, unit, None, scale if by_scale else None, None if by_scale else np.array(sizes[1:])
        )
        row, column = np.nonzero(part)
        rows.append(row)
        columns.append(column + start)
        weights.append(part[row, column])
    return _table(sizes[1], *map(np.concatenate, (rows, columns, weights)))


def _table(output: int, rows: Array, columns: Array, weights: Array) -> Taps:
    """(row, column, weight) triples as a table of equally many taps per row."""
    order = np.lexsort((columns, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    counts = np.bincount(rows, minlength=output)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    nth = np.arange(rows.size) - first[rows]
    width = max(int(counts.max()), 1)
    places = np.repeat(columns[np.minimum(first, columns.size - 1)][:, None], width, axis=1)
    table = np.zeros((output, width), dtype=np.float32)
    places[rows, nth], table[rows, nth] = columns, weights
    return Taps(places.astype(np.int64), table)


@dataclass(frozen=True, slots=True)
class TappedRows:
    """Weighted sums of an input's pixels; one unit is a row of one channel block.

    Parameters
    ----------
    rows, columns : taps along height and width.
    """

    x: Blocked
    y: Blocked
    rows: int
    columns: int

    @property
    def units(self) -> int:
        return self.y.n * self.y.blocks * self.y.h

    def arrays(self, x: Array, y: Array, rows: Taps, columns: Taps) -> list[Array]:
        """What the code reads and writes, in order."""
        offsets = rows.places * self.x.row, columns.places * self.x.lanes
        return [x, y, *offsets, rows.weights, columns.weights]

    def ir(self) -> str:
        module = Module(self.y.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        pointers = [f.argument("%args", index) for index in range(6)]
        f.loop("%end", lambda unit: self._row(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        x, y, row_places, column_places, row_weights, column_weights = pointers
        rest, row = f.divide(unit, self.y.h)
        image, block = f.divide(rest, self.y.blocks)
        plane = row_start(f, x, self.x, image, block, "0")
        target = row_start(f, y, self.y, image, block, row)
        steps = self._taps(f, row_places, row_weights, row, self.rows)
        lines = [(f.at(plane, offset), weight) for offset, weight in steps]

        def pixel(column: Value) -> None:
            steps = self._taps(f, column_places, column_weights, column, self.columns)
            across = [
                self._sum(f, [(f.at(line, offset), by) for offset, by in steps])
                for line, _ in lines
            ]
            total = across[0]
            if self.rows > 1:
                total = f.arithmetic("fmul", across[0], lines[0][1])
                for value, (_, weight) in zip(across[1:], lines[1:], strict=True):
                    total = f.multiply_add(value, weight, total)
            f.store_vector(total, f.at(target, f.mul(column, self.y.lanes)))

        f.loop(self.y.w, pixel)
        clear_halo(f, self.y, target, row)

    @staticmethod
    def _taps(
        f: Function, places: Value, weights: Value, index: Value, count: int
    ) -> list[tuple[Value, Value]]:
        """Offsets and weights of one output row or column; the weight of a single tap is one."""
        found = []
        for tap in range(count):
            number = f.add(f.mul(index, count), tap)
            place = f.emit(f"getelementptr inbounds i64, ptr {places}, i64 {number}")
            offset = f.load_index(place)
            found.append((offset, f.broadcast(f.at(weights, number)) if count > 1 else ""))
        return found

    @staticmethod
    def _sum(f: Function, taps: Sequence[tuple[Value, Value]]) -> Value:
        """Weighted sum of the vectors at some addresses."""
        (first, weight), *rest = taps
        total = f.load_vector(first)
        if rest:
            total = f.arithmetic("fmul", total, weight)
        for place, by in rest:
            total = f.multiply_add(f.load_vector(place), by, total)
        return total
