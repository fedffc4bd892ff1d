"""Winograd's tiles: their sizes, and the passes over one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
    def widths(self) -> set[int]:
        """Columns of tiles that lie inside the output: of the last one there may be fewer."""
        return {min(self.m[1], self.output[1]), (self.output[1] - 1) % self.m[1] + 1}

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


def put_tile(
    f: Function,
    t: Tiling,
    sums: tuple[Value, int],
    half: Value,
    bias: Value,
    corners: Sequence[Value],
    tensors: Sequence[Blocked],
    epilogue: Epilogue,
    extent: tuple[Value, Value],
) -> None:
    """A' M A of one tile of vectors, bias and epilogue; stores what lies inside the output.

    Parameters
    ----------
    sums : where the tile begins, and floats between its frequencies.
    half : memory for what lies between the two passes.
    corners : of the tile in the output and in what lies like it, the ``tensors``.
    extent : rows and columns that lie inside.
    """
    (at_h, _, _), (at_w, _, _) = (
        winograd_matrices(m, r) for m, r in zip(t.m, t.kernel, strict=True)
    )
    (high, wide), (begin, pitch) = t.a, sums

    def column(j: Value) -> None:
        top = f.at(begin, f.mul(j, pitch))
        seen = [f.load_vector(f.at(top, i * wide * pitch)) for i in range(high)]
        for i, value in enumerate(apply_matrix(f, at_h, seen)):
            place = f.at(f.at(half, f.mul(j, t.lanes)), i * wide * t.lanes)
            f.store_vector(value, place, 64)

    def line(i: Value) -> None:
        start = f.at(half, f.mul(i, wide * t.lanes))
        seen = [f.load_vector(f.at(start, j * t.lanes), 64) for j in range(wide)]
        totals = [f.arithmetic("fadd", value, bias) for value in apply_matrix(f, at_w, seen)]
        places = [f.at(c, f.mul(i, b.row)) for c, b in zip(corners, tensors, strict=True)]

        def put(count: int) -> None:
            for j, total in enumerate(totals[:count]):
                target, *others = (f.at(place, j * t.lanes) for place in places)
                operands = tuple(f.load_vector(other) for other in others)
                f.store_vector(epilogue.apply(f, total, operands), target)

        for count in t.widths:
            f.when(f.compare("eq", extent[1], count), partial(put, count))

    f.loop(wide, column)
    f.loop(extent[0], line)
