"""Lines of a tensor: what softmax, normalizations and reductions walk along, vector by vector.

A unit of work is one row along its elements, or as many lines side by side as a vector has lanes:
columns of a plain tensor, channels of a blocked one. Kernels say what happens to a group of
vectors; the same words serve rows, columns and planes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.ir import Function, Value

GROUP = 8
"""Vectors in flight: enough sums side by side to hide the latency of an addition."""

Place: TypeAlias = tuple[Value, int]
"""Where a vector lies from the line's start, in floats, and how many of its lanes count."""

Combine: TypeAlias = Callable[[Function, Value, Value], Value]


@dataclass(frozen=True, slots=True)
class Line:
    """Where the vectors of one unit lie.

    Parameters
    ----------
    lanes : of a vector register.
    loops : (count, pitch in floats), outermost first; the innermost counts whole vectors.
    count : lanes that hold something.
    tail : elements behind the last whole vector of a row.
    across : whether the line runs through the lanes too, so that it has one result in all lanes.
    """

    lanes: int
    loops: tuple[tuple[int, int], ...]
    count: int
    tail: int = 0
    across: bool = False

    @staticmethod
    def row(lanes: int, length: int) -> Line:
        """Consecutive elements."""
        return Line(lanes, ((length // lanes, lanes),), lanes, length % lanes, True)

    @staticmethod
    def plane(t: Blocked) -> Line:
        """The pixels of one plane of a blocked tensor, a channel in each lane."""
        loops = ((t.h, t.row), (t.w, t.lanes)) if t.halo else ((t.h * t.w, t.lanes),)
        return Line(t.lanes, loops, t.lanes)

    @property
    def result_count(self) -> int:
        """Lanes that a result fills where it is stored."""
        return 1 if self.across else self.count

    @property
    def width(self) -> int:
        """Vectors of one group."""
        return min(GROUP, self.loops[-1][0] + bool(self.tail))

    def sweep(
        self,
        f: Function,
        visit: Callable[[Sequence[Place], Sequence[Value]], Sequence[Value]],
        totals: Sequence[Value] = (),
    ) -> list[Value]:
        """``totals = visit(places, totals)`` for every group of vectors.

        A smaller last group sees, and gives, as many totals as it has places.
        """

        def walk(depth: int, base: Value, totals: Sequence[Value]) -> list[Value]:
            count, pitch = self.loops[depth]
            if depth == len(self.loops) - 1:
                return self._groups(f, visit, base, totals)

            def turn(index: Value, *inner: Value) -> list[Value]:
                return walk(depth + 1, f.add(base, f.mul(index, pitch)), inner)

            return f.loop(count, turn, [(f.vector, total) for total in totals])

        return walk(0, "0", totals)

    def _groups(
        self,
        f: Function,
        visit: Callable[[Sequence[Place], Sequence[Value]], Sequence[Value]],
        base: Value,
        totals: Sequence[Value],
    ) -> list[Value]:
        count, pitch = self.loops[-1]
        groups, rest = divmod(count, GROUP)

        def group(index: Value, *totals: Value) -> Sequence[Value]:
            first = f.add(base, f.mul(index, GROUP * pitch))
            return visit([(f.add(first, k * pitch), self.count) for k in range(GROUP)], totals)

        if groups:
            totals = f.loop(groups, group, [(f.vector, total) for total in totals])
        start = groups * GROUP
        places = [(f.add(base, (start + k) * pitch), self.count) for k in range(rest)]
        if self.tail:
            places.append((f.add(base, count * pitch), self.tail))
        if not places:
            return list(totals)
        return [*visit(places, totals[: len(places)]), *totals[len(places) :]]

    def fold(
        self,
        f: Function,
        neutral: float,
        values: Callable[[Sequence[Place]], Sequence[Value]],
        combine: Combine,
    ) -> Value:
        """All values of the line combined: in every lane, or lane by lane."""

        def visit(places: Sequence[Place], totals: Sequence[Value]) -> list[Value]:
            found = zip(values(places), places, totals, strict=True)
            return [combine(f, self._kept(f, v, count, neutral), t) for v, (_, count), t in found]

        totals = self.sweep(f, visit, [f.constant(neutral)] * self.width)
        while len(totals) > 1:
            half = len(totals) // 2
            pairs = zip(totals[:half], totals[half : 2 * half], strict=True)
            totals = [*(combine(f, a, b) for a, b in pairs), *totals[2 * half :]]
        return self._across(f, totals[0], combine) if self.across else totals[0]

    def each(self, f: Function, visit: Callable[[Sequence[Place]], None]) -> None:
        """Visit every group of vectors."""

        def visited(places: Sequence[Place], totals: Sequence[Value]) -> Sequence[Value]:
            visit(places)
            return ()

        self.sweep(f, visited)

    def _kept(self, f: Function, value: Value, count: int, neutral: float) -> Value:
        """The lanes that count, the neutral number in the others."""
        if count == self.lanes or not self.across:
            return value
        lanes = [lane if lane < count else lane + self.lanes for lane in range(self.lanes)]
        return shuffled(f, value, f.constant(neutral), lanes)

    def _across(self, f: Function, value: Value, combine: Combine) -> Value:
        """All lanes combined, in every lane."""
        distance = self.lanes // 2
        while distance:
            swapped = shuffled(f, value, "poison", [k ^ distance for k in range(self.lanes)])
            value = combine(f, value, swapped)
            distance //= 2
        return value


def shuffled(f: Function, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """Lanes of two vectors, numbered through."""
    mask = f"<{f.lanes} x i32> <{', '.join(f'i32 {lane}' for lane in lanes)}>"
    return f.emit(f"shufflevector {f.vector} {a}, {f.vector} {b}, {mask}")


def load_all(f: Function, pointer: Value, places: Sequence[Place]) -> list[Value]:
    """The vectors at some places; all are read before the caller writes any."""
    return [f.load_lanes(f.at(pointer, offset), count) for offset, count in places]


def store_all(
    f: Function, values: Sequence[Value], pointer: Value, places: Sequence[Place]
) -> None:
    for value, (offset, count) in zip(values, places, strict=True):
        f.store_lanes(value, f.at(pointer, offset), count)


def change_row(
    f: Function,
    tensors: tuple[Blocked, Blocked],
    pointers: tuple[Value, Value],
    place: tuple[Value, Value, Value],
    change: Callable[[Value], Value],
) -> None:
    """Write ``change`` of every vector of a row (image, block, row), and the halo around it."""
    source, target = (
        row_start(f, pointer, t, *place) for pointer, t in zip(pointers, tensors, strict=True)
    )

    def visit(places: Sequence[Place]) -> None:
        store_all(f, [change(value) for value in load_all(f, source, places)], target, places)

    y = tensors[1]
    Line.row(f.lanes, y.w * y.lanes).each(f, visit)
    clear_halo(f, y, target, place[2])


def total(f: Function, a: Value, b: Value) -> Value:
    """The combination that sums."""
    return f.arithmetic("fadd", a, b)


@dataclass(frozen=True, slots=True)
class PlainLines:
    """A plain tensor (outer, length, inner) as lines of ``length``; rows where ``inner`` is 1.

    The last columns of an outer index overlap those before them, so that a vector is never cut:
    what is computed twice is written twice.
    """

    lanes: int
    outer: int
    length: int
    inner: int

    @staticmethod
    def along(lanes: int, shape: Sequence[int], axes: Sequence[int]) -> PlainLines | None:
        """Lines along neighbouring axes; None where other axes lie between them."""
        first, last = min(axes, default=0), max(axes, default=-1)
        between = [axis for axis in range(first, last + 1) if axis not in axes]
        if any(shape[axis] != 1 for axis in between):
            return None
        parts = shape[:first], shape[first : last + 1], shape[last + 1 :]
        return PlainLines(lanes, *map(prod, parts))

    @property
    def line(self) -> Line:
        if self.inner == 1:
            return Line.row(self.lanes, self.length)
        return Line(self.lanes, ((self.length, self.inner),), min(self.lanes, self.inner))

    @property
    def chunks(self) -> int:
        """Units of one outer index."""
        return -(-self.inner // self.lanes)

    @property
    def units(self) -> int:
        return self.outer * self.chunks

    @property
    def overlaps(self) -> bool:
        """Whether some columns are computed twice."""
        return self.inner > self.lanes and self.inner % self.lanes != 0

    def place(self, f: Function, unit: Value) -> tuple[Value, Value]:
        """Outer index and first column of a unit."""
        outer, chunk = f.divide(unit, self.chunks)
        column = f.mul(chunk, self.lanes)
        if self.overlaps:
            column = f.minimum(column, self.inner - self.lanes)
        return outer, column

    def start(self, f: Function, pointer: Value, outer: Value, column: Value) -> Value:
        """Address of the first element of a unit's first line."""
        return f.at(f.at(pointer, f.mul(outer, self.length * self.inner)), column)
