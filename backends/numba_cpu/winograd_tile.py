"""Winograd's tiles: their sizes, and the passes over one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.linear_maps import apply_matrix
from mnnpy.schemes.winograd_matrices import winograd_matrices


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of a Winograd convolution; pairs are (height, width), ``blocks`` of rows of tiles.

    Rows of tiles are numbered through all pictures.

    Transformed data lie as (frequency, channel block, tile, lane), with a cache line between
    frequencies so that they do not meet in one set of the cache.
    """

    n: int
    c: int
    k: int
    kernel: tuple[int, int]
    m: tuple[int, int]
    output: tuple[int, int]
    blocks: int
    lanes: int

    @property
    def a(self) -> tuple[int, int]:
        """Tile size."""
        return self.m[0] + self.kernel[0] - 1, self.m[1] + self.kernel[1] - 1

    @property
    def area(self) -> int:
        return math.prod(self.a)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles along each axis."""
        return -(-self.output[0] // self.m[0]), -(-self.output[1] // self.m[1])

    @property
    def tiles(self) -> int:
        """Of one picture."""
        return math.prod(self.grid)

    @property
    def high(self) -> int:
        """Rows of tiles of all pictures."""
        return self.n * self.grid[0]

    def rows(self, block: int) -> range:
        """Rows of tiles of a block; blocks differ by at most one row."""
        first, end = (at * self.high // self.blocks for at in (block, block + 1))
        return range(first, end)

    @property
    def sizes(self) -> list[int]:
        """How many rows blocks have, the fewest first."""
        return sorted({self.high // self.blocks, -(-self.high // self.blocks)})

    @property
    def most(self) -> int:
        """Tiles of a large block."""
        return self.sizes[-1] * self.grid[1]

    @property
    def channel_blocks(self) -> int:
        return -(-self.c // self.lanes)

    @property
    def frequency(self) -> int:
        """Floats from one frequency of the data to the next."""
        return self.channel_blocks * self.most * self.lanes + 16

    @property
    def data_elements(self) -> int:
        return self.area * self.frequency


def add_tile_transform(module: Module, t: Tiling) -> None:
    """Add a function ``tile(x, pitch, half, data)``: B' d B of one tile of vectors."""
    f = Function(
        module,
        "tile",
        [("ptr", "x"), ("i64", "pitch"), ("ptr", "half"), ("ptr", "data")],
        inner=True,
    )
    (_, _, bt_h), (_, _, bt_w) = (
        winograd_matrices(m, r) for m, r in zip(t.m, t.kernel, strict=True)
    )
    high, wide = t.a

    def column(j: Value) -> None:
        top = f.at("%x", f.mul(j, t.lanes))
        seen = [f.load_vector(f.at(top, f.mul("%pitch", i))) for i in range(high)]
        for i, value in enumerate(apply_matrix(f, bt_h, seen)):
            place = f.at(f.at("%half", f.mul(j, t.lanes)), i * wide * t.lanes)
            f.store_vector(value, place, 64)

    def line(i: Value) -> None:
        start = f.at("%half", f.mul(i, wide * t.lanes))
        seen = [f.load_vector(f.at(start, j * t.lanes), 64) for j in range(wide)]
        place = f.at("%data", f.mul(i, wide * t.frequency))
        for j, value in enumerate(apply_matrix(f, bt_w, seen)):
            f.store_vector(value, f.at(place, j * t.frequency))

    f.loop(wide, column)
    f.loop(high, line)
    f.finish()


def copy_part(
    f: Function, t: Tiling, source: Value, pitch: int, target: Value, high: Value, wide: Value
) -> None:
    """The part of a tile that is there; zeros elsewhere."""
    f.loop(t.area, lambda i: f.store_vector(f.constant(0.0), f.at(target, f.mul(i, t.lanes)), 64))

    def row(i: Value) -> None:
        start, place = f.at(source, f.mul(i, pitch)), f.at(target, f.mul(i, t.a[1] * t.lanes))

        def pixel(j: Value) -> None:
            offset = f.mul(j, t.lanes)
            f.store_vector(f.load_vector(f.at(start, offset)), f.at(place, offset), 64)

        f.loop(wide, pixel)

    f.loop(high, row)


@dataclass(frozen=True, slots=True)
class PutTile:
    """A' M A of one tile of vectors, bias and epilogue; stores what lies inside the output.

    Parameters
    ----------
    pool : edge of the windows whose maxima are stored.
    widths : columns of the output that a tile can have.
    """

    f: Function
    t: Tiling
    bias: Value
    epilogue: Epilogue
    pool: int
    widths: set[int]

    def __call__(
        self,
        sums: tuple[Value, int],
        half: Value,
        corners: Sequence[tuple[Value, Blocked]],
        inside: tuple[Value, Value],
    ) -> None:
        """Emit the code.

        Parameters
        ----------
        sums : where the tile begins, and floats between its frequencies.
        half : memory for what lies between the two passes.
        corners : of the tile in the output and in what lies like it.
        inside : rows and columns that lie inside the output.
        """
        f, t = self.f, self.t
        (high, wide), (begin, pitch) = t.a, sums
        back, _, _ = winograd_matrices(t.m[0], t.kernel[0])

        def column(j: Value) -> None:
            top = f.at(begin, f.mul(j, pitch))
            seen = [f.load_vector(f.at(top, i * wide * pitch)) for i in range(high)]
            for i, value in enumerate(apply_matrix(f, back, seen)):
                place = f.at(f.at(half, f.mul(j, t.lanes)), i * wide * t.lanes)
                f.store_vector(value, place, 64)

        def line(i: Value) -> None:
            first = f.mul(i, self.pool)
            rows = [self._totals(half, f.add(first, r)) for r in range(self.pool)]
            places = [f.at(corner, f.mul(i, b.row)) for corner, b in corners]
            for count in self.widths:
                there = f.compare("eq", inside[1], count)
                f.when(there, partial(self._put, rows, places, count))

        f.loop(wide, column)
        f.loop(inside[0], line)

    def _totals(self, half: Value, row: Value) -> list[Value]:
        """A row of the tile."""
        f, t = self.f, self.t
        back, _, _ = winograd_matrices(t.m[1], t.kernel[1])
        start = f.at(half, f.mul(row, t.a[1] * t.lanes))
        seen = [f.load_vector(f.at(start, j * t.lanes), 64) for j in range(t.a[1])]
        return [f.arithmetic("fadd", value, self.bias) for value in apply_matrix(f, back, seen)]

    def _put(self, rows: Sequence[Sequence[Value]], places: Sequence[Value], count: int) -> None:
        """Vectors of one row of the output, each of a window of ``rows``."""
        f = self.f
        for j in range(count):
            target, *others = (f.at(place, j * self.t.lanes) for place in places)
            operands = tuple(f.load_vector(other) for other in others)
            window = slice(j * self.pool, (j + 1) * self.pool)
            seen = (self.epilogue.apply(f, x, operands) for row in rows for x in row[window])
            f.store_vector(reduce(f.largest, seen), target)
