"""Code of Winograd's passes over blocks of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.convolutions import row_choices
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.linear_maps import apply_matrix
from mnnpy.backends.numba_cpu.products import LINE, Terms, Weights, lines_ahead, product_tile
from mnnpy.schemes.winograd_matrices import winograd_matrices


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of a Winograd convolution; pairs are (height, width).

    Transformed data lie as (frequency, channel block, tile, lane), with a cache line between
    frequencies so that they do not meet in one set of the cache.
    """

    n: int
    c: int
    k: int
    kernel: tuple[int, int]
    m: tuple[int, int]
    output: tuple[int, int]
    rows: int
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
        return math.prod(self.grid)

    @property
    def blocks(self) -> int:
        """Blocks of rows of tiles."""
        return -(-self.grid[0] // self.rows)

    @property
    def most(self) -> int:
        """Tiles of a full block."""
        return min(self.rows, self.grid[0]) * self.grid[1]

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

    def rows_from(self, first: int) -> int:
        """Rows of tiles in the block that starts at row ``first``."""
        return min(self.rows, self.grid[0] - first)


def transform_code(t: Tiling, x: Blocked, begin: tuple[int, ...], first: int) -> str:
    """Input transform of one block; buffers (x from the block's first tile, data).

    One unit is a row of tiles of a block of channels. Tiles that reach beyond the padded input are
    copied first, with zeros where there is nothing.
    """
    module = Module(t.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    source, data = f.argument("%args", 0), f.argument("%args", 1)
    rows, columns = t.rows_from(first), t.grid[1]
    there = (
        x.h + 2 * x.halo - (x.halo - begin[0]) - first * t.m[0],
        x.w + 2 * x.halo - (x.halo - begin[1]),
    )
    inner = tuple(
        max(0, min(count, (size - a) // m + 1))
        for count, size, a, m in zip((rows, columns), there, t.a, t.m, strict=True)
    )
    half = f.scratch(t.area * t.lanes)
    whole = f.scratch(t.area * t.lanes)
    _tile_transform(module, t)

    def unit(index: Value) -> None:
        block, r = f.divide(index, rows)
        target = f.at(data, f.mul(block, t.most * t.lanes))
        line = f.at(f.at(source, f.mul(block, x.plane)), f.mul(r, t.m[0] * x.row))

        def tile(q: Value, edge: bool) -> None:
            seen = f.at(line, f.mul(q, t.m[1] * t.lanes))
            place = f.at(target, f.mul(f.add(f.mul(r, columns), q), t.lanes))
            if not edge:
                f.call("tile", ("ptr", seen), ("i64", str(x.row)), ("ptr", half), ("ptr", place))
                return
            high = f.minimum(t.a[0], f.sub(there[0], f.mul(r, t.m[0])))
            wide = f.minimum(t.a[1], f.sub(there[1], f.mul(q, t.m[1])))
            _copy_part(f, t, seen, x.row, whole, high, wide)
            pitch = str(t.a[1] * t.lanes)
            f.call("tile", ("ptr", whole), ("i64", pitch), ("ptr", half), ("ptr", place))

        inside = f.select(f.compare("slt", r, inner[0]), "i64", inner[1], 0)
        f.loop(inside, lambda q: tile(q, edge=False))
        f.loop(columns, lambda q: tile(q, edge=True), start=inside)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


def _tile_transform(module: Module, t: Tiling) -> None:
    """Internal function ``tile(x, pitch, half, data)``: B' d B of one tile of vectors."""
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


def _copy_part(
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


def product_code(
    t: Tiling, y: Blocked, residuals: Sequence[Blocked], epilogue: Epilogue, first: int
) -> str:
    """Products and output transform of one block; buffers (data, u, bias, y, *residuals).

    ``y`` and the residuals start at the block's first pixel. One unit is a block of outputs.
    """
    module = Module(t.lanes)
    rows, columns = t.rows_from(first), t.grid[1]
    tiles = rows * columns
    (height,) = row_choices(tiles, 14, 7)
    full, tail = divmod(tiles, height)
    last = t.c - (t.channel_blocks - 1) * t.lanes
    terms = Terms(t.channel_blocks, t.most * t.lanes, t.lanes, last, ((0,), (0,)), t.lanes)
    weights = Weights(t.lanes, fetched=lines_ahead(t.lanes**2, full + bool(tail)))
    for count in sorted({height, tail} - {0}):
        product_tile(
            module,
            f"tile{count}",
            count,
            1,
            terms,
            (t.lanes, 0),
            False,
            lambda f, s, r, v: s,
            weights=weights,
        )
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    data, u, bias, target, *added = (f.argument("%args", i) for i in range(4 + len(residuals)))
    pitch = tiles * t.lanes + 16
    sums, half, whole = (f.scratch(n) for n in (t.area * pitch, t.area * t.lanes, t.area * t.lanes))

    def unit(block: Value) -> None:
        panels = f.at(u, f.mul(block, t.area * t.c * t.lanes))

        def frequency(index: Value) -> None:
            seen, place = f.at(data, f.mul(index, t.frequency)), f.at(sums, f.mul(index, pitch))
            w = f.at(panels, f.mul(index, t.c * t.lanes))
            coming = f.at(w, t.c * t.lanes)

            def tile(count: int, turn: Value) -> None:
                offset = f.mul(f.mul(turn, height), t.lanes)
                behind = f.at(coming, f.mul(turn, weights.fetched * LINE * t.channel_blocks))
                f.call(
                    f"tile{count}",
                    ("ptr", f.at(seen, offset)),
                    ("ptr", w),
                    ("ptr", w),
                    ("ptr", f.at(place, offset)),
                    *([("ptr", behind)] if weights.fetched else []),
                )

            if full:
                f.loop(full, lambda turn: tile(height, turn))
            if tail:
                tile(tail, str(full))

        f.loop(t.area, frequency)
        start = f.load_vector(f.at(bias, f.mul(block, t.lanes)))
        planes = [
            f.at(pointer, f.mul(block, b.plane))
            for pointer, b in zip((target, *added), (y, *residuals), strict=True)
        ]

        def back(index: Value) -> None:
            r, q = f.divide(index, columns)
            _tile_back(f, t, f.at(sums, f.mul(index, t.lanes)), pitch, half, whole)
            high = f.minimum(t.m[0], f.sub(t.output[0] - first * t.m[0], f.mul(r, t.m[0])))
            wide = f.minimum(t.m[1], f.sub(t.output[1], f.mul(q, t.m[1])))
            corners = [
                f.at(f.at(p, f.mul(r, t.m[0] * b.row)), f.mul(q, t.m[1] * t.lanes))
                for p, b in zip(planes, (y, *residuals), strict=True)
            ]
            _put(f, t, whole, start, corners, (y, *residuals), epilogue, high, wide)

        f.loop(tiles, back)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


def _tile_back(f: Function, t: Tiling, sums: Value, pitch: int, half: Value, whole: Value) -> None:
    """A' M A of one tile of vectors."""
    (at_h, _, _), (at_w, _, _) = (
        winograd_matrices(m, r) for m, r in zip(t.m, t.kernel, strict=True)
    )
    (high, wide), (mh, mw) = t.a, t.m

    def column(j: Value) -> None:
        top = f.at(sums, f.mul(j, pitch))
        seen = [f.load_vector(f.at(top, i * wide * pitch)) for i in range(high)]
        for i, value in enumerate(apply_matrix(f, at_h, seen)):
            place = f.at(f.at(half, f.mul(j, t.lanes)), i * wide * t.lanes)
            f.store_vector(value, place, 64)

    def line(i: Value) -> None:
        start = f.at(half, f.mul(i, wide * t.lanes))
        seen = [f.load_vector(f.at(start, j * t.lanes), 64) for j in range(wide)]
        place = f.at(whole, f.mul(i, mw * t.lanes))
        for j, value in enumerate(apply_matrix(f, at_w, seen)):
            f.store_vector(value, f.at(place, j * t.lanes), 64)

    f.loop(wide, column)
    f.loop(mh, line)


def _put(
    f: Function,
    t: Tiling,
    whole: Value,
    bias: Value,
    corners: Sequence[Value],
    tensors: Sequence[Blocked],
    epilogue: Epilogue,
    high: Value,
    wide: Value,
) -> None:
    """Bias, epilogue and store of the part of a tile that lies inside the output."""

    def row(i: Value) -> None:
        line = f.at(whole, f.mul(i, t.m[1] * t.lanes))
        starts = [f.at(c, f.mul(i, b.row)) for c, b in zip(corners, tensors, strict=True)]

        def pixel(j: Value) -> None:
            offset = f.mul(j, t.lanes)
            total = f.arithmetic("fadd", f.load_vector(f.at(line, offset), 64), bias)
            operands = tuple(f.load_vector(f.at(start, offset)) for start in starts[1:])
            f.store_vector(epilogue.apply(f, total, operands), f.at(starts[0], offset))

        f.loop(wide, pixel)

    f.loop(high, row)


def halo_code(y: Blocked) -> str:
    """Zeros around every plane; one unit is a row."""
    module = Module(y.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    target = f.argument("%args", 0)

    def unit(index: Value) -> None:
        rest, row = f.divide(index, y.h)
        image, block = f.divide(rest, y.blocks)
        clear_halo(f, y, row_start(f, target, y, image, block, row), row)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
