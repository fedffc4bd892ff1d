"""Copies between two arrays of one shape and any strides: cuts, joins, permutations, repetitions.

Axes are put in the target's order and joined where both sides run on. Then the innermost decides:
rows that both sides hold in one piece, single elements that are repeated, two axes that change
places (tiles of as many rows as a vector has lanes, transposed in registers), or single elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.graph.types import Array

_UNITS = 16
"""Pieces of work from which on a copy is even enough to be shared between threads."""

_ROW_NBYTES = 16384
"""Bytes of one unit of a single long row."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop of a copy: elements, and their distance in source and target, in elements."""

    size: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class StridedCopy:
    """Everything that the code depends on; the last of ``axes`` is the innermost.

    Parameters
    ----------
    nbytes : of a vector register.
    itemsize : bytes of an element, 1, 2, 4 or 8.
    """

    nbytes: int
    itemsize: int
    axes: tuple[Axis, ...]

    @staticmethod
    def between(nbytes: int, target: Array, source: Array) -> StridedCopy:
        """The copy of one NumPy array to another of equal shape."""
        itemsize = target.itemsize
        strides = zip(target.shape, source.strides, target.strides, strict=True)
        axes = [Axis(n, s // itemsize, t // itemsize) for n, s, t in strides if n != 1]
        joined: list[Axis] = []
        for axis in sorted(axes, key=lambda a: -abs(a.target)):
            outer = joined[-1] if joined else None
            if outer and (outer.source, outer.target) == (
                axis.source * axis.size,
                axis.target * axis.size,
            ):
                joined[-1] = Axis(outer.size * axis.size, axis.source, axis.target)
            else:
                joined.append(axis)
        return StridedCopy(nbytes, itemsize, tuple(_cut(joined, _ROW_NBYTES // itemsize)))

    @property
    def lanes(self) -> int:
        return self.nbytes // self.itemsize

    @property
    def tile(self) -> tuple[int, int] | None:
        """Axes that run on in the source and in the target, where they are two."""
        runs = [index for index, axis in enumerate(self.axes) if axis.source == 1]
        if not runs or self.axes[-1].target != 1 or runs[-1] == len(self.axes) - 1:
            return None
        return runs[-1], len(self.axes) - 1

    @property
    def shared(self) -> int:
        """How many axes units are made of; the others are loops within one."""
        outer = self._outer
        count = 0
        while count < len(outer) and prod(self._turns(i) for i in outer[:count]) < _UNITS:
            count += 1
        return count

    @property
    def units(self) -> int:
        return prod(self._turns(index) for index in self._outer[: self.shared])

    @property
    def _outer(self) -> list[int]:
        """Axes that are walked in steps; a tile walks its own ones a tile at a time."""
        inner = () if self.tile else (len(self.axes) - 1,)
        return [index for index in range(len(self.axes)) if index not in inner]

    def _turns(self, index: int) -> int:
        size = self.axes[index].size
        return -(-size // self._edge) if self.tile and index in self.tile else size

    @property
    def _edge(self) -> int:
        """Rows and columns of a tile: a power of two, at most 16."""
        return min(self.lanes, 16)

    def ir(self) -> str:
        module = Module(self.nbytes // 4)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        target, source = f.argument("%args", 0), f.argument("%args", 1)
        outer, shared = self._outer, self.shared

        def unit(number: Value) -> None:
            places = [source, target]
            for index in reversed(outer[:shared]):
                number, turn = f.divide(number, self._turns(index))
                places = self._moved(f, index, turn, *places)
            self._walk(f, outer[shared:], *places)

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _walk(self, f: Function, outer: Sequence[int], source: Value, target: Value) -> None:
        if not outer:
            self._inside(f, source, target)
            return
        first, *rest = outer

        def turn(number: Value) -> None:
            self._walk(f, rest, *self._moved(f, first, number, source, target))

        f.loop(self._turns(first), turn)

    def _moved(
        self, f: Function, index: int, turn: Value, source: Value, target: Value
    ) -> list[Value]:
        """Both places after some turns of an axis; the last tile overlaps the one before it."""
        axis = self.axes[index]
        if self.tile and index in self.tile:
            turn = f.mul(turn, self._edge)
            if axis.size > self._edge and axis.size % self._edge:
                turn = f.minimum(turn, axis.size - self._edge)
        return [
            self._at(f, source, f.mul(turn, axis.source)),
            self._at(f, target, f.mul(turn, axis.target)),
        ]

    def _inside(self, f: Function, source: Value, target: Value) -> None:
        if not self.axes:
            self._store(f, self._load(f, source, 1), target, 1)
        elif self.tile:
            self._transpose(f, source, target)
        elif self.axes[-1].target == 1 and self.axes[-1].source in (0, 1):
            self._row(f, source, target)
        else:
            axis = self.axes[-1]

            def move(index: Value) -> None:
                value = self._load(f, self._at(f, source, f.mul(index, axis.source)), 1)
                self._store(f, value, self._at(f, target, f.mul(index, axis.target)), 1)

            f.loop(axis.size, move)

    def _row(self, f: Function, source: Value, target: Value) -> None:
        """Consecutive elements, of consecutive ones or of a single one."""
        axis, lanes = self.axes[-1], self.lanes
        single = self._spread(f, source) if axis.source == 0 else None

        def move(place: Value, count: int) -> None:
            there = self._at(f, target, place)
            if single is not None:
                self._store(f, single, there, count, lanes)
            else:
                self._store(f, self._load(f, self._at(f, source, place), count), there, count)

        full, tail = divmod(axis.size, lanes)
        if full:
            f.loop(full, lambda index: move(f.mul(index, lanes), lanes))
        if tail:
            move(str(full * lanes), tail)

    def _transpose(self, f: Function, source: Value, target: Value) -> None:
        """A tile: rows of the source become columns of the target."""
        assert self.tile is not None
        columns, rows = (self.axes[index] for index in self.tile)
        edge = self._edge
        height, width = min(edge, rows.size), min(edge, columns.size)
        vectors = [
            self._load(f, self._at(f, source, row * rows.source), width, edge)
            for row in range(height)
        ]
        vectors += ["poison"] * (edge - height)
        for row, other, *kept in exchanges(edge):
            pair = vectors[row], vectors[other]
            vectors[row], vectors[other] = (self._shuffled(f, *pair, lanes, edge) for lanes in kept)
        for column in range(width):
            place = self._at(f, target, column * columns.target)
            self._store(f, vectors[column], place, height, edge)

    # Elements as integers of their size

    def _kind(self, count: int) -> str:
        return f"<{count} x i{8 * self.itemsize}>"

    def _at(self, f: Function, pointer: Value, elements: Value | int) -> Value:
        if str(elements) == "0":
            return pointer
        element = f"i{8 * self.itemsize}"
        return f.emit(f"getelementptr inbounds {element}, ptr {pointer}, i64 {elements}")

    def _load(self, f: Function, pointer: Value, count: int, width: int | None = None) -> Value:
        """Some elements, as a vector of ``width`` whose other lanes are undefined."""
        value = f.emit(f"load {self._kind(count)}, ptr {pointer}, align {self.itemsize}")
        if width in (None, count):
            return value
        lanes = [lane if lane < count else None for lane in range(width or count)]
        return self._shuffled(f, value, "poison", lanes, count)

    def _store(
        self, f: Function, value: Value, pointer: Value, count: int, width: int | None = None
    ) -> None:
        """The first elements of a vector of ``width``."""
        if width not in (None, count):
            value = self._shuffled(f, value, "poison", range(count), width or count)
        f.do(f"store {self._kind(count)} {value}, ptr {pointer}, align {self.itemsize}")

    def _spread(self, f: Function, pointer: Value) -> Value:
        """One element in every lane; of which a tail stores the first ones."""
        single = self._load(f, pointer, 1)
        return self._shuffled(f, single, "poison", [0] * self.lanes, 1)

    def _shuffled(
        self, f: Function, a: Value, b: Value, lanes: Sequence[int | None], width: int
    ) -> Value:
        listed = ", ".join(f"i32 {'poison' if lane is None else lane}" for lane in lanes)
        kind, mask = self._kind(width), f"<{len(lanes)} x i32> <{listed}>"
        return f.emit(f"shufflevector {kind} {a}, {kind} {b}, {mask}")


def exchanges(edge: int) -> Iterator[tuple[int, int, list[int], list[int]]]:
    """What transposes as many vectors as they have lanes, a power of two: exchanges of halves,
    quarters, ... between pairs of them.

    Each is (row, other row, lanes of both that the row gets, and that the other gets), the other's
    lanes being numbered from ``edge`` on.
    """
    distance = edge // 2
    while distance:
        low = [k if not k & distance else k - distance + edge for k in range(edge)]
        high = [k + distance if not k & distance else k + edge for k in range(edge)]
        for row in range(edge):
            if not row & distance:
                yield row, row + distance, low, high
        distance //= 2


def _cut(axes: Sequence[Axis], most: int) -> Iterator[Axis]:
    """The axes, a single long row cut into equal pieces where it divides."""
    if len(axes) != 1 or axes[0].size <= most:
        yield from axes
        return
    (row,) = axes
    pieces = next((n for n in range(row.size // most, 0, -1) if row.size % n == 0), 1)
    length = row.size // pieces
    yield Axis(pieces, row.source * length, row.target * length)
    yield Axis(length, row.source, row.target)
