"""Tensors that are broadcast against each other, walked row by row in either layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.ir import Function, Value

CHUNK = 4096
"""Elements of a row that one unit of work takes at most."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How one tensor is walked.

    Parameters
    ----------
    pitches : elements per step of each loop around the rows.
    step : elements from one vector of a row to the next; 0 where one serves the whole row.
    spread : one element serves all lanes.
    first : element to start at.
    """

    pitches: tuple[int, ...]
    step: int
    spread: bool
    first: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """Loops over rows of ``length`` elements of the output; ``walks`` begin with the output's."""

    sizes: tuple[int, ...]
    length: int
    walks: tuple[Walk, ...]

    @property
    def chunks(self) -> int:
        """Units of one row."""
        return -(-self.length // CHUNK)

    @property
    def units(self) -> int:
        return prod(self.sizes) * self.chunks

    def split(self, f: Function, unit: Value) -> tuple[list[Value], Value]:
        """The loops' indices, outermost first, and the chunk."""
        rest, chunk = f.divide(unit, self.chunks)
        indices: list[Value] = []
        for size in reversed(self.sizes):
            rest, index = f.divide(rest, size)
            indices.insert(0, index)
        return indices, chunk

    def offset(self, f: Function, walk: Walk, indices: Sequence[Value], chunk: Value) -> Value:
        """Elements before the chunk of a tensor."""
        offset = f.mul(chunk, CHUNK // f.lanes * walk.step)
        for index, pitch in zip(indices, walk.pitches, strict=True):
            offset = f.add(offset, f.mul(index, pitch))
        return f.add(offset, walk.first)


def plain_rows(shape: Sequence[int], operands: Sequence[Sequence[int]], lanes: int) -> Rows:
    """Row-major tensors of these shapes, broadcast to the output's ``shape``."""
    pitches = [_plain_pitches(operand, shape) for operand in (shape, *operands)]
    sizes, pitches = _merged(shape, pitches)
    walks = tuple(Walk(tuple(p[:-1]), p[-1] * lanes, p[-1] == 0) for p in pitches)
    return Rows(tuple(sizes[:-1]), sizes[-1], walks)


def blocked_rows(y: Blocked, operands: Sequence[Blocked | Sequence[int]]) -> Rows:
    """Channel-blocked tensors, and row-major ones whose elements serve all channels."""
    shape = (y.n, y.blocks, y.h, y.w)
    tensors = (y, *operands)
    pitches = [
        _blocked_pitches(t) if isinstance(t, Blocked) else _plain_pitches(t, shape) for t in tensors
    ]
    # Where there is a halo to clear, rows stay rows.
    sizes, pitches = _merged(shape, pitches, 2 if y.halo else 0)
    walks = tuple(
        Walk(tuple(p[:-1]), p[-1], False, t.origin)
        if isinstance(t, Blocked)
        else Walk(tuple(p[:-1]), p[-1], True)
        for t, p in zip(tensors, pitches, strict=True)
    )
    return Rows(tuple(sizes[:-1]), sizes[-1] * y.lanes, walks)


def _blocked_pitches(t: Blocked) -> list[int]:
    """Floats per step along images, blocks, rows and pixels; 0 where there is one of them."""
    steps = ((t.n, t.image), (t.blocks, t.plane), (t.h, t.row), (t.w, t.lanes))
    return [0 if count == 1 else step for count, step in steps]


def _plain_pitches(shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Elements per step along each axis of ``wanted``; 0 along those that are broadcast."""
    shape = (1,) * (len(wanted) - len(shape)) + tuple(shape)
    return [0 if size == 1 else prod(shape[axis + 1 :]) for axis, size in enumerate(shape)]


def _merged(
    shape: Sequence[int], pitches: Sequence[Sequence[int]], kept: int = 0
) -> tuple[list[int], list[list[int]]]:
    """The same walk with as few axes as can be, at least one; the last ``kept`` as they are."""
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in pitches]
    for axis, size in enumerate(shape):
        free = axis < len(shape) - kept
        if size == 1 and free:
            continue
        steps = [p[axis] for p in pitches]
        if sizes and free and all(m[-1] == s * size for m, s in zip(merged, steps, strict=True)):
            sizes[-1] *= size
            for m, s in zip(merged, steps, strict=True):
                m[-1] = s
        else:
            sizes.append(size)
            for m, s in zip(merged, steps, strict=True):
                m.append(s)
    if not sizes:
        return [1], [[1] for _ in pitches]
    return sizes, merged
