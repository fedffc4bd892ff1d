"""Code of Winograd convolutions on blocks of rows of tiles.

A block is transformed, multiplied and transformed back, either within one unit of work with the
data on the stack, or in two steps: a unit is then a row of tiles of a block of channels, and a
group of blocks of outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.products import LINE, Terms, Weights, lines_ahead, product_tile
from mnnpy.backends.numba_cpu.winograd_tile import (
    PutTile,
    Tiling,
    add_tile_transform,
    copy_part,
)


@dataclass(frozen=True, slots=True)
class Winograd:
    """Everything that the code depends on.

    Parameters
    ----------
    begin : leading pads.
    height, vectors : of the tile of products, at most: tiles of the picture by blocks of outputs.
    pool : edge of the windows of the output whose maxima are stored in place of them.
    ahead : slices of a volume in front of the first that a picture reads; its channels are those of
        as many slices as there are taps in depth.
    """

    t: Tiling
    x: Blocked
    y: Blocked
    residuals: tuple[Blocked, ...]
    epilogue: Epilogue
    begin: tuple[int, int]
    height: int
    vectors: int
    pool: int = 1
    ahead: int = 0

    @property
    def groups(self) -> int:
        """Groups of ``vectors`` blocks of outputs."""
        return self.y.blocks // self.vectors

    @property
    def stored(self) -> tuple[int, int]:
        """Rows and columns of what a tile stores."""
        return self.t.m[0] // self.pool, self.t.m[1] // self.pool

    @property
    def written(self) -> tuple[Blocked, ...]:
        """The output, and what lies like it."""
        return self.y, *self.residuals

    def heights(self, rows: int) -> tuple[int, int, int]:
        """Tiles that a product takes at once, how often, and how many are left."""
        tiles = rows * self.t.grid[1]
        height = -(-tiles // -(-tiles // self.height))
        return height, *divmod(tiles, height)

    def weights(self, rows: int) -> Weights:
        """With lines of the next frequency fetched, shared among this one's tiles."""
        _, full, tail = self.heights(rows)
        width = self.vectors * self.t.lanes
        return Weights(width, fetched=lines_ahead(width * self.t.lanes, full + bool(tail)))


def block_code(w: Winograd, shares: int) -> str:
    """All of the convolution; buffers (x, u, bias, y, *residuals).

    One unit is a block and one of so many shares of the outputs.
    """
    t = w.t
    module = Module(t.lanes)
    add_tile_transform(module, t)
    for rows in t.sizes:
        _add_products(module, w, rows)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    x, u, bias, *written = (f.argument("%args", i) for i in range(4 + len(w.residuals)))
    data, spare = f.scratch(t.data_elements), _Spare.of(f, w)

    def unit(index: Value) -> None:
        block, share = f.divide(index, shares)
        first, end = (f.divide(f.mul(at, t.high), t.blocks)[0] for at in (block, f.add(block, 1)))

        def whole(rows: int) -> None:
            f.loop(
                str(t.channel_blocks * rows),
                lambda index: _transform_row(f, w, f.divide(index, rows), first, x, data, spare),
            )
            low, high = (
                f.divide(f.mul(at, w.groups), shares)[0] for at in (share, f.add(share, 1))
            )
            f.loop(
                high,
                lambda index: _outputs(f, w, rows, index, first, [data, u, bias, *written], spare),
                start=low,
            )

        for rows in t.sizes:
            f.when(f.compare("eq", f.sub(end, first), rows), partial(whole, rows))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


def transform_code(w: Winograd, rows: int) -> str:
    """Input transform of one block; buffers (x, data, number of its first row)."""
    module = Module(w.t.lanes)
    add_tile_transform(module, w.t)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    source, data, number = (f.argument("%args", i) for i in range(3))
    first, spare = f.load_index(number), _Spare.of(f, w)
    f.loop(
        "%end",
        lambda index: _transform_row(f, w, f.divide(index, rows), first, source, data, spare),
        start="%begin",
    )
    f.finish()
    return str(module)


def product_code(w: Winograd, rows: int) -> str:
    """Products and output transform of one block; buffers (data, u, bias, number of its first row,
    y, *residuals).
    """
    module = Module(w.t.lanes)
    _add_products(module, w, rows)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    data, u, bias, number, *written = (f.argument("%args", i) for i in range(5 + len(w.residuals)))
    first, spare = f.load_index(number), _Spare.of(f, w)
    f.loop(
        "%end",
        lambda index: _outputs(f, w, rows, index, first, [data, u, bias, *written], spare),
        start="%begin",
    )
    f.finish()
    return str(module)


@dataclass(frozen=True, slots=True)
class _Spare:
    """Memory for one tile, between its two passes and behind them, and for products: (vector,
    frequency, tile, lane), ``pitch`` floats between frequencies.
    """

    half: Value
    whole: Value
    sums: Value
    pitch: int

    @staticmethod
    def of(f: Function, w: Winograd) -> _Spare:
        t = w.t
        pitch = t.most * t.lanes + LINE
        half, whole = (f.scratch(t.area * t.lanes) for _ in range(2))
        return _Spare(half, whole, f.scratch(w.vectors * t.area * pitch), pitch)


def _place(f: Function, t: Tiling, row: Value) -> tuple[Value, Value]:
    """The picture that a row of tiles is in, and the row within it."""
    return f.divide(row, t.grid[0]) if t.n > 1 else ("0", row)


def _transform_row(
    f: Function,
    w: Winograd,
    place: tuple[Value, Value],
    first: Value,
    source: Value,
    data: Value,
    spare: _Spare,
) -> None:
    """A row of tiles of a block of channels; ``place`` is (block, row behind ``first``).

    Tiles that reach beyond the padded input are copied first, with zeros where there is nothing.
    """
    t, x, (block, r) = w.t, w.x, place
    lead = x.above - w.begin[0], x.halo - w.begin[1]
    there = x.h + 2 * x.above - lead[0], x.w + 2 * x.halo - lead[1]
    inner = tuple(
        max(0, min(count, (size - a) // m + 1))
        for count, size, a, m in zip(t.grid, there, t.a, t.m, strict=True)
    )
    image, row = _place(f, t, f.add(first, r))
    target = f.at(data, f.mul(block, t.most * t.lanes))
    depth, block = f.divide(block, x.blocks) if x.slices else ("0", block)
    picture = f.at(f.at(source, f.mul(image, x.image)), f.mul(depth, x.slice))
    plane = f.at(picture, f.mul(block, x.plane))
    corner = f.at(plane, w.ahead * x.slice + lead[0] * x.row + lead[1] * x.lanes)
    line = f.at(corner, f.mul(row, t.m[0] * x.row))

    def tile(q: Value, edge: bool) -> None:
        seen = f.at(line, f.mul(q, t.m[1] * t.lanes))
        to = f.at(target, f.mul(f.add(f.mul(r, t.grid[1]), q), t.lanes))
        pitch = x.row
        if edge:
            high = f.minimum(t.a[0], f.sub(there[0], f.mul(row, t.m[0])))
            wide = f.minimum(t.a[1], f.sub(there[1], f.mul(q, t.m[1])))
            copy_part(f, t, seen, x.row, spare.whole, high, wide)
            seen, pitch = spare.whole, t.a[1] * t.lanes
        f.call("tile", ("ptr", seen), ("i64", str(pitch)), ("ptr", spare.half), ("ptr", to))

    inside = f.select(f.compare("slt", row, inner[0]), "i64", inner[1], 0)
    f.loop(inside, lambda q: tile(q, edge=False))
    f.loop(t.grid[1], lambda q: tile(q, edge=True), start=inside)


def _add_products(module: Module, w: Winograd, rows: int) -> None:
    """Add the tiles of products for a block of so many rows."""
    t = w.t
    height, full, tail = w.heights(rows)
    last = t.c - (t.channel_blocks - 1) * t.lanes
    terms = Terms(t.channel_blocks, t.most * t.lanes, t.lanes, last, ((0,), (0,)), t.lanes)
    for count in sorted({height if full else 0, tail} - {0}):
        name = f"products{rows}x{count}"
        pitch = (t.lanes, t.area * (t.most * t.lanes + LINE))
        product_tile(
            module, name, count, w.vectors, terms, pitch, False, _as_it_is, weights=w.weights(rows)
        )


def _as_it_is(f: Function, total: Value, row: int, v: int) -> Value:
    return total


def _outputs(
    f: Function,
    w: Winograd,
    rows: int,
    group: Value,
    first: Value,
    pointers: Sequence[Value],
    spare: _Spare,
) -> None:
    """One group of outputs of ``rows`` rows of tiles from ``first`` on; ``pointers`` are (data, u,
    bias, the output and added tensors).
    """
    data, u, *rest = pointers
    panels = f.at(u, f.mul(group, w.t.area * w.t.c * w.vectors * w.t.lanes))
    _multiply(f, w, rows, data, panels, spare)
    for v in range(w.vectors):
        block = f.add(f.mul(group, w.vectors), v)
        sums = f.at(spare.sums, v * w.t.area * spare.pitch)
        _put_block(f, w, rows, block, first, rest, replace(spare, sums=sums))


def _put_block(
    f: Function,
    w: Winograd,
    rows: int,
    block: Value,
    first: Value,
    pointers: Sequence[Value],
    spare: _Spare,
) -> None:
    """Output transform of a block of outputs; ``pointers`` are bias, output and added tensors."""
    t, (bias, *written), (high, wide) = w.t, pointers, w.stored
    start = f.load_vector(f.at(bias, f.mul(block, t.lanes)))
    planes = [
        f.at(p, f.add(f.mul(block, b.plane), b.origin))
        for p, b in zip(written, w.written, strict=True)
    ]

    def begin(plane: Value, b: Blocked, image: Value, top: Value) -> Value:
        return f.at(f.at(plane, f.mul(image, b.image)), f.mul(top, b.row))

    def back(index: Value) -> None:
        r, q = f.divide(index, t.grid[1])
        image, row = _place(f, t, f.add(first, r))
        top, left = f.mul(row, high), f.mul(q, wide)
        corners = [
            f.at(begin(p, b, image, top), f.mul(left, t.lanes))
            for p, b in zip(planes, w.written, strict=True)
        ]
        inside = f.minimum(high, f.sub(w.y.h, top)), f.minimum(wide, f.sub(w.y.w, left))
        sums = f.at(spare.sums, f.mul(index, t.lanes)), spare.pitch
        put = PutTile(f, t, start, w.epilogue, w.pool, {wide, (w.y.w - 1) % wide + 1})
        put(sums, spare.half, [*zip(corners, w.written, strict=True)], inside)

    def clear(r: Value) -> None:
        image, row = _place(f, t, f.add(first, r))
        top = f.mul(row, high)
        line = begin(planes[0], w.y, image, top)
        f.loop(
            f.minimum(high, f.sub(w.y.h, top)),
            lambda i: clear_halo(f, w.y, f.at(line, f.mul(i, w.y.row)), f.add(top, i)),
        )

    f.loop(str(rows * t.grid[1]), back)
    if w.y.halo:
        f.loop(str(rows), clear)


def _multiply(
    f: Function, w: Winograd, rows: int, data: Value, panels: Value, spare: _Spare
) -> None:
    """Products of all frequencies of a block with the weights of one group of outputs."""
    t = w.t
    height, full, tail = w.heights(rows)
    fetched = w.weights(rows).fetched

    def frequency(index: Value) -> None:
        seen = f.at(data, f.mul(index, t.frequency))
        place = f.at(spare.sums, f.mul(index, spare.pitch))
        weights = f.at(panels, f.mul(index, t.c * w.vectors * t.lanes))
        coming = f.at(weights, t.c * w.vectors * t.lanes)

        def tile(count: int, turn: Value) -> None:
            offset = f.mul(turn, height * t.lanes)
            ahead = f.at(coming, f.mul(turn, fetched * LINE * t.channel_blocks))
            f.call(
                f"products{rows}x{count}",
                ("ptr", f.at(seen, offset)),
                ("ptr", weights),
                ("ptr", weights),
                ("ptr", f.at(place, offset)),
                *([("ptr", ahead)] if fetched else []),
            )

        if full:
            f.loop(full, lambda turn: tile(height, turn))
        if tail:
            tile(tail, str(full))

    f.loop(t.area, frequency)
