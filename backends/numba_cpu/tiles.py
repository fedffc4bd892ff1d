"""Which product tiles a machine runs well, and which of them serve a width best.

Rates say how many multiply-adds a second a tile of (rows, vectors) does with everything in near
cache. Heights that nobody timed lie between their neighbours: the time of a tile rises by the row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files

from mnnpy.runtime.devices import Device, TileRates

TALLEST = 14
"""Rows of a tile, unless its kernel says otherwise."""

_EQUAL = 1.03
"""Times that differ by less are noise: the kernel's own preference decides."""


def choose_tile(
    device: Device,
    lanes: int,
    width: int,
    blocks: int,
    vectors: Sequence[int],
    tallest: int = TALLEST,
    most_sums: int | None = None,
) -> tuple[int, int]:
    """Rows and vectors of the tiles that pass ``width`` rows by ``blocks`` vectors soonest.

    Parameters
    ----------
    vectors : of a tile, what the kernel prefers first; it is left where another is faster.
    tallest : most rows of a tile.
    most_sums : most rows times vectors of a tile; None means what the registers hold.
    """
    rates = device.tile_rates or shipped_rates(lanes)
    return _choose(rates, width, blocks, tuple(vectors), tallest, most_sums)


@cache
def shipped_rates(lanes: int) -> TileRates:
    """Rates of a machine like those with such vectors, where nobody timed the one at hand."""
    text = (files("mnnpy.configs") / "tile_rates.json").read_text()
    return tuple((rows, vectors, rate) for rows, vectors, rate in json.loads(text)[str(lanes)])


@lru_cache(maxsize=4096)
def _choose(
    rates: TileRates,
    width: int,
    blocks: int,
    vectors: tuple[int, ...],
    tallest: int,
    most_sums: int | None,
) -> tuple[int, int]:
    table = _tile_seconds(rates)
    found = {}
    for count in vectors:
        limit = tallest if most_sums is None else min(tallest, max(1, most_sums // count))
        heights = _heights(table, count, min(width, limit))
        if heights:
            rows = _best_height(table, width, count, heights)
            whole, rest = divmod(blocks, count)
            seconds = whole * _pass_seconds(table, width, rows, count)
            seconds += _pass_seconds(table, width, rows, rest) if rest else 0
            found[rows, count] = seconds
    best = min(found.values())
    return next(tile for tile, seconds in found.items() if seconds <= _EQUAL * best)


def _heights(table: dict[tuple[int, int], float], vectors: int, tallest: int) -> list[int]:
    return [rows for rows in range(1, tallest + 1) if (rows, vectors) in table]


def _best_height(
    table: dict[tuple[int, int], float], width: int, vectors: int, heights: Sequence[int]
) -> int:
    """Of those about as fast as the fastest, the one of least remainder, tall before low.

    Tall tiles read weights less often: of heights that are equal in near cache, those of less than
    half the tallest are left out.
    """
    seconds = {rows: _pass_seconds(table, width, rows, vectors) for rows in heights}
    best = min(seconds.values())
    equal = [rows for rows in heights if seconds[rows] <= _EQUAL * best]
    tall = [rows for rows in equal if 2 * rows >= equal[-1]]
    return min(tall, key=lambda rows: (-width % rows, -rows))


def _pass_seconds(
    table: dict[tuple[int, int], float], width: int, rows: int, vectors: int
) -> float:
    """Time of one term and lane over a width, in tiles of so many rows and a lower last one."""
    full, tail = divmod(width, rows)
    return full * table[rows, vectors] + (table[tail, vectors] if tail else 0)


@cache
def _tile_seconds(rates: TileRates) -> dict[tuple[int, int], float]:
    """Time of one term and lane of every tile up to the tallest that was timed."""
    timed = {(rows, vectors): rows * vectors / rate for rows, vectors, rate in rates}
    table = {}
    for vectors in sorted({vectors for _, vectors in timed}):
        heights = sorted(rows for rows, count in timed if count == vectors)
        for low, high in zip(heights, heights[1:] or heights, strict=False):
            start, end = timed[low, vectors], timed[high, vectors]
            for rows in range(low, high + 1):
                part = (rows - low) / max(high - low, 1)
                table[rows, vectors] = start + part * (end - start)
    return table
