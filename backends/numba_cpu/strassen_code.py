"""Strassen's product on tensors of rows: sums of the input, and tiles of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from mnnpy.backends.numba_cpu.blocked import clear_halo
from mnnpy.backends.numba_cpu.convolutions import aligned_floats
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.native import NativeCall
from mnnpy.backends.numba_cpu.products import LINE
from mnnpy.backends.numba_cpu.strassen_tile import (
    PRODUCTS,
    SUMS,
    Grid,
    Strassen,
    factors,
    last_tile,
    pair_tile,
)
from mnnpy.runtime.graph.types import Array

ROUNDING = 5e-8
"""Error that is added per square root of the number of terms, relative to the largest output; as
measured, the errors are 2.2 to 2.8 times those of a direct convolution."""

QUARTERS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""(right, down)"""


def strassen_calls(kernel: NativeKernel, p: Strassen, arrays: Sequence[Array]) -> list[NativeCall]:
    """The sums, where they are made ahead, and the products; on (x, s, w, b, y, *residuals)."""
    products = kernel.call(product_code(p), arrays, p.units)
    if p.near:
        return [products]
    return [kernel.call(sums_code(p), arrays[:2], p.depth * p.images * p.pairs), products]


def sums_code(p: Strassen) -> str:
    """Code that makes the sums of all rows from (x, s).

    One unit is a pair of rows of a pair of blocks. Blocks come after rows, so that threads which
    share the blocks of the tensor sum what they have written; chunks of rows come after both.
    """
    module = Module(p.lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    x, s = f.argument("%args", 0), f.argument("%args", 1)

    def unit(index: Value) -> None:
        chunk, within = f.divide(index, p.depth * p.images * p.pairs // p.chunks)
        block, place = f.divide(within, p.images * p.pairs // p.chunks)
        image, pair = f.divide(place, p.pairs // p.chunks)
        pair = f.add(f.mul(chunk, p.pairs // p.chunks), pair)
        place = f.add(f.mul(image, p.pairs), pair)
        row = _row(f, x, p.x, image, pair)
        _make_sums(p, f, block, row, f.at(s, f.mul(place, p.pair_sums)))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


@lru_cache(maxsize=8)
def product_code(p: Strassen) -> str:
    """Code of the products; where weights are near, of the sums as well."""
    module = Module(p.lanes)
    for height in p.heights(p.width):
        pair_tile(p, module, height)
    for height in p.heights(p.last):
        last_tile(p, module, height)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    x, s, *rest = (f.argument("%args", index) for index in range(5 + len(p.residuals)))
    scratch = f.scratch(p.pair_sums) if p.near else s

    def pairs_or_last(pair: Value, pairs: Callable[[], None], last: Callable[[], None]) -> None:
        if not p.last:
            pairs()
            return
        f.when(f.compare("ne", pair, p.pairs), pairs)
        f.when(f.compare("eq", pair, p.pairs), last)

    def near(index: Value) -> None:
        image, pair = f.divide(index, p.row_units)

        def all_groups(kind: str, row: Value | int) -> None:
            pointers = [_row(f, x, p.x, image, row), scratch, *rest]
            f.loop(
                str(p.groups),
                lambda group: _put(p, f, kind, (image, group, row), pointers),
            )

        def pairs() -> None:
            row = _row(f, x, p.x, image, pair)
            f.loop(str(p.depth), lambda block: _make_sums(p, f, block, row, scratch))
            all_groups("pair", pair)

        pairs_or_last(pair, pairs, lambda: all_groups("last", 2 * p.pairs))

    def far(index: Value) -> None:
        others, pair = f.divide(index, p.row_units // p.chunks)
        others, group = f.divide(others, p.groups)
        chunk, image = f.divide(others, p.images)
        pair = f.add(f.mul(chunk, p.row_units // p.chunks), pair)
        made = f.mul(f.add(f.mul(image, p.pairs), pair), p.pair_sums)

        def put(kind: str, row: Value | int) -> None:
            pointers = [_row(f, x, p.x, image, row), f.at(s, made), *rest]
            _put(p, f, kind, (image, group, row), pointers)

        pairs_or_last(pair, lambda: put("pair", pair), lambda: put("last", 2 * p.pairs))

    f.loop("%end", near if p.near else far, start="%begin")
    f.finish()
    return str(module)


def _make_sums(p: Strassen, f: Function, block: Value, x: Value, target: Value) -> None:
    """S1 = a21 + a22, S2 = S1 - a11, S3 = a11 - a21, S4 = a12 - S2 of a pair of rows and blocks."""
    right, down = p.x.block, p.pairs * p.x.row
    source = f.at(x, f.mul(block, 2 * p.x.block))
    place = f.at(target, f.mul(block, p.width * p.lanes))

    def pixel(index: Value) -> None:
        first = f.at(source, f.mul(index, p.x.pixel))
        a11, a12, a21, a22 = (
            f.load_vector(f.at(first, offset)) for offset in (0, right, down, right + down)
        )
        s1 = f.arithmetic("fadd", a21, a22)
        s2 = f.arithmetic("fsub", s1, a11)
        s3 = f.arithmetic("fsub", a11, a21)
        s4 = f.arithmetic("fsub", a12, s2)
        to = f.at(place, f.mul(index, p.lanes))
        for number, total in enumerate((s1, s2, s3, s4)):
            f.store_vector(total, f.at(to, number * p.pair_sums // SUMS), 4 * p.lanes)

    f.loop(str(p.width), pixel)


def _put(
    p: Strassen,
    f: Function,
    kind: str,
    place: tuple[Value, Value, Value | int],
    pointers: Sequence[Value],
) -> None:
    """A pair of rows, or a last row, of one pair of groups of blocks of the output.

    ``place`` is (image, group, upper row); ``pointers`` are that row of the input, the sums of
    the pair, then weights, bias, output and added tensors from their start.
    """
    image, group, row = place
    x, s, weights, bias, *written = pointers
    weights = f.at(weights, f.mul(group, p.panel))
    step = PRODUCTS * p.fetched * LINE * p.depth
    full, tail = divmod(p.width if kind == "pair" else p.last, p.height)
    coming = f.at(f.at(weights, p.panel), f.mul(row, p.tiles * step))
    bias = f.at(bias, f.mul(group, 2 * p.vectors * p.lanes))
    grids = (p.y, *p.residuals)
    starts = [
        f.at(_row(f, pointer, grid, image, row), f.mul(group, 2 * p.vectors * grid.block))
        for pointer, grid in zip(written, grids, strict=True)
    ]

    def tile(height: int, index: Value) -> None:
        first = f.mul(index, p.height)
        moving = zip((x, s, *starts), p.pixels, strict=True)
        x_, s_, *starts_ = (f.at(start, f.mul(first, pixel)) for start, pixel in moving)
        arguments = (x_, s_, weights, bias, *starts_, f.at(coming, f.mul(index, step)))
        f.call(f"{kind}{height}", *(("ptr", argument) for argument in arguments))

    if full:
        f.loop(full, lambda index: tile(p.height, index))
    if tail:
        tile(tail, str(full))
    if p.y.picture is not None:
        for right, down in QUARTERS if kind == "pair" else QUARTERS[:2]:
            start = f.at(starts[0], p.quarter(p.y, right, down))
            written_row = f.add(row, down * p.pairs)
            clear_halo(f, p.y.picture, start, written_row, p.vectors)


def _row(f: Function, base: Value, grid: Grid, image: Value, row: Value | int) -> Value:
    """Address of the first pixel of a row."""
    return f.at(f.at(f.at(base, f.mul(image, grid.image)), f.mul(row, grid.row)), grid.origin)


def pack_factors(b: Array, lanes: int, width: int, alone: bool) -> Array:
    """A (k, n) matrix's second factors as (groups, factors, k / 2, width), for blocks of ``lanes``
    terms and groups of ``width`` columns; ``alone`` where there is a row without a partner.
    """
    k, n = b.shape
    count = factors(alone)
    packed = aligned_floats((n // (2 * width), count, k // 2, width))
    blocks = b.reshape(-1, 2, lanes, len(packed), 2, width).transpose(1, 4, 3, 0, 2, 5)
    for index, factor in enumerate(_second_factors(blocks)[:count]):
        packed[:, index] = factor.reshape(len(packed), -1, width)
    return packed


def _second_factors(b: Array) -> tuple[Array, ...]:
    """Those of the seven products, in the order of the tile, and b12; ``b[i, j]`` are quarters.

    They are b11, b21, T2, T3, -T4, T1, b22 with T1 = b12 - b11, T2 = b22 - T1, T3 = b22 - b12 and
    T4 = T2 - b21.
    """
    (b11, b12), (b21, b22) = b
    t1 = b12.astype(np.float64) - b11
    t2 = b22 - t1
    return b11, b21, t2, b22 - b12, b21 - t2, t1, b22, b12
