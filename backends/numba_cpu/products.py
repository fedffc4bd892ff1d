"""The product tile: R rows by V vectors of sums of products, the heart of every dense kernel.

``y[row, vector] = finish(start + sum of x[row, term] * w[term, vector] over terms)``. Convolutions
of any kernel, fully connected layers and matrix products are this tile with other addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from mnnpy.backends.numba_cpu.ir import Function, Module, Value

LINE = 16
"""Floats of a cache line."""

_MOST_FETCHED = 8
"""Lines per block of terms; where tiles are few, weights stream as fast as they can anyway."""

Finish = Callable[[Function, Value, int, int], Value]
"""(function, sum, row, vector) -> what is stored."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Addresses of the terms, in floats from the tile's first input element.

    Terms run over ``blocks`` (``block_pitch`` apart) of ``channels`` neighbours each, the last
    block of ``last_channels``, and within a block over ``taps`` along every axis; rows are
    ``row_pitch`` apart. Weights lie in the same order: block, taps, channel, then V vectors. Where
    they are ``cut``, the tile gets two numbers more, ``%top`` and ``%bottom``: the taps of the
    first axis that it passes.
    """

    blocks: int
    block_pitch: int
    channels: int
    last_channels: int
    taps: tuple[tuple[int, ...], ...]
    row_pitch: int
    cut: bool = False

    @property
    def count(self) -> int:
        """Number of terms."""
        channels = (self.blocks - 1) * self.channels + self.last_channels
        return channels * prod(map(len, self.taps))


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a tile finds its weights.

    Parameters
    ----------
    pitch : floats from one term to the next.
    aligned : whether every term starts at a multiple of the vector.
    last_lanes : how many lanes of the last vector there are in memory; None means all.
    fetched : cache lines per block of terms that are brought near, for the tiles to come; the tile
        gets one more pointer, ``%coming``, that says from where on.
    """

    pitch: int
    aligned: bool = True
    last_lanes: int | None = None
    fetched: int = 0


def lines_ahead(floats: int, turns: int) -> int:
    """Lines that each of so many blocks of terms brings near, to fetch so many weights together."""
    lines = -(-floats // (LINE * turns))
    return lines if lines <= _MOST_FETCHED else 0


@dataclass(frozen=True, slots=True)
class Tile:
    """Sums in registers: so many rows by vectors."""

    rows: int
    vectors: int
    weights: Weights

    def load_weights(self, f: Function, w: Value) -> list[Value]:
        """The vectors of one term."""
        align, last = (4 * f.lanes if self.weights.aligned else 4), self.weights.last_lanes
        whole = self.vectors if last in (None, f.lanes) else self.vectors - 1
        loaded = [f.load_vector(f.at(w, v * f.lanes), align) for v in range(whole)]
        if last is not None and whole < self.vectors:
            loaded.append(f.load_lanes(f.at(w, whole * f.lanes), last))
        return loaded


def product_tile(
    module: Module,
    name: str,
    rows: int,
    vectors: int,
    terms: Terms,
    output_pitch: tuple[int, int],
    starts: bool,
    finish: Finish,
    extra: Sequence[str] = (),
    last_lanes: int | None = None,
    weights: Weights | None = None,
    lanes: int | None = None,
) -> None:
    """Add an internal function ``name(x, w, b, y, *extra)`` that computes one tile.

    Parameters
    ----------
    output_pitch : floats between rows and between vectors of the output.
    starts : whether sums start from ``b`` (V vectors), else from zero.
    extra : names of further pointers that ``finish`` reads.
    last_lanes : how many lanes of the last vector there are in the output; None means all.
    weights : how they lie, where not packed as V vectors after V vectors.
    lanes : of a vector, where not all of a register.
    """
    tile = Tile(rows, vectors, weights or Weights(vectors * module.lanes))
    names = ["x", "w", "b", "y", *extra, *(["coming"] if tile.weights.fetched else [])]
    cuts = [("i64", name) for name in ("top", "bottom")] if terms.cut else []
    parameters = [*(("ptr", parameter) for parameter in names), *cuts]
    f = Function(module, name, parameters, True, lanes=lanes)
    first = [
        f.load_vector(f.at("%b", v * f.lanes)) if starts else f.constant(0.0)
        for v in range(vectors)
    ]
    start = [first[v] for _ in range(rows) for v in range(vectors)]
    _, sums = add_products(f, "%x", "%w", start, tile, terms, "%coming")
    for index, total in enumerate(sums):
        row, v = divmod(index, vectors)
        place = f.at("%y", row * output_pitch[0] + v * output_pitch[1])
        count = f.lanes if last_lanes is None or v + 1 < vectors else last_lanes
        f.store_lanes(finish(f, total, row, v), place, count)
    f.finish()


def add_products(
    f: Function,
    x: Value,
    w: Value,
    sums: Sequence[Value],
    tile: Tile,
    terms: Terms,
    coming: Value,
) -> tuple[Value, list[Value]]:
    """Add the products of all terms to a tile of sums; returns where the weights end, and the sums.

    ``coming`` is where weights are fetched from, if any are.
    """
    fetched = tile.weights.fetched
    full = terms.blocks if terms.last_channels == terms.channels else terms.blocks - 1

    def block(index: Value, x: Value, w: Value, *sums: Value) -> list[Value]:
        for line in range(fetched):
            f.prefetch(f.at(coming, f.add(f.mul(index, fetched * LINE), line * LINE)))
        w, after = _taps(f, x, w, list(sums), tile, terms, terms.channels)
        return [f.at(x, terms.block_pitch), w, *after]

    state = [x, w, *sums]
    if full:
        state = f.loop(full, block, _carried(f, state))
    if full == terms.blocks:
        return state[1], state[2:]
    return _taps(f, state[0], state[1], state[2:], tile, terms, terms.last_channels)


def _taps(
    f: Function,
    x: Value,
    w: Value,
    sums: list[Value],
    tile: Tile,
    terms: Terms,
    channels: int,
) -> tuple[Value, list[Value]]:
    """All taps of one block; returns the weights' next address and the sums."""
    first, *others = terms.taps
    step = _unroll(channels)

    def part(_: Value, x: Value, w: Value, *sums: Value) -> list[Value]:
        after = _multiply(f, x, w, list(sums), tile, terms.row_pitch, step)
        return [f.at(x, step), f.at(w, step * tile.weights.pitch), *after]

    def inside(axes: Sequence[Sequence[int]], state: Sequence[Value]) -> list[Value]:
        """The taps of the axes that are left, the channels last; ``state`` is (x, w, *sums)."""
        if axes:
            return along(axes[0], axes[1:], state, 0, len(axes[0]))
        return f.loop(channels // step, part, _carried(f, state))

    def along(
        axis: Sequence[int],
        inner: Sequence[Sequence[int]],
        state: Sequence[Value],
        start: Value | int,
        end: Value | int,
    ) -> list[Value]:
        def tap(_: Value, x: Value, *others: Value) -> list[Value]:
            return [f.at(x, _pitch(axis)), *inside(inner, [x, *others])[1:]]

        return f.loop(end, tap, _carried(f, state), start=start)

    if not terms.cut:
        _, w, *after = inside(terms.taps, [x, w, *sums])
        return w, after
    weights = prod(map(len, others)) * channels * tile.weights.pitch
    x, w = f.at(x, f.mul("%top", _pitch(first))), f.at(w, f.mul("%top", weights))
    _, w, *after = along(first, others, [x, w, *sums], "%top", "%bottom")
    return f.at(w, f.mul(f.sub(len(first), "%bottom"), weights)), after


def _carried(f: Function, state: Sequence[Value]) -> list[tuple[str, Value]]:
    """(x, w, *sums) with their types."""
    x, w, *sums = state
    return [("ptr", x), ("ptr", w), *((f.vector, s) for s in sums)]


def _multiply(
    f: Function,
    x: Value,
    w: Value,
    sums: list[Value],
    tile: Tile,
    row_pitch: int,
    channels: int,
) -> list[Value]:
    """Some channels of one tap."""
    for c in range(channels):
        weights = tile.load_weights(f, f.at(w, c * tile.weights.pitch))
        for row in range(tile.rows):
            factor = f.broadcast(f.at(x, row * row_pitch + c))
            for v in range(tile.vectors):
                index = row * tile.vectors + v
                sums[index] = f.multiply_add(factor, weights[v], sums[index])
    return sums


def _unroll(channels: int) -> int:
    """Channels per turn: four keep broadcasts inside the multiply-adds and registers free."""
    return next(step for step in (4, 3, 2, 1) if channels % step == 0)


def _pitch(taps: Sequence[int]) -> int:
    return taps[1] - taps[0] if len(taps) > 1 else 0
