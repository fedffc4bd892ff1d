"""Winograd convolution F(m, r): fewer multiplications by transforming tiles.

Source: Lavin and Gray, CVPR 2016; matrices in ``winograd_matrices``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import (
    ConvGeometry,
    aligned,
    blocks,
    in_order,
    is_float,
    rounding,
    take,
)
from mnnpy.schemes.view import copying
from mnnpy.schemes.winograd_matrices import winograd_matrices

AMPLIFICATION = {1: 1.0, 2: 1.1, 3: 1.1, 4: 1.2, 5: 1.6, 6: 2.1, 7: 3.8, 8: 4.2}
"""Tile size of one axis -> rounding errors (root mean square) over those of a direct convolution,
as measured on random data; the interpolation points decide. Axes multiply."""

_DIRECT_ERROR = 2e-6
"""Largest error of a direct convolution in float32, relative to the largest output."""

_TILE_LIMIT = 9
"""Tiles from here on lose more precision than they save time."""

_BLOCK_TILES = 96
"""Below this many tiles, matrix products lose more than caching gains."""


class ConvWinograd(Scheme):
    """Tiles of m outputs per axis; an axis with one tap is left alone, so 1xr and rx1 work too.

    With tile a = m + r - 1 per axis, each of the a*a frequencies is one (k, c) by (c, tiles)
    product.
    """

    name = "conv_winograd"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        if len(g.spatial) != 2:
            return f"{len(g.spatial)} spatial axes"
        if max(g.strides) > 1 or max(g.dilations) > 1:
            return f"strides {g.strides}, dilations {g.dilations}: needs ones"
        if g.group > 1:
            return "grouped"
        if g.taps == 1:
            return "a 1x1 kernel has nothing to save"
        if task.known(1) is None:
            return "the weights are computed by the network"
        if max(g.kernel) > 7:
            return f"kernel {g.kernel}: tiles beyond 7 taps lose precision"
        return None if is_float(g.dtype) else f"{g.dtype} is not a plain float"

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        g = ConvGeometry.of(task)
        outputs = [m for m in (2, 4, 6) if m + max(g.kernel) - 1 < _TILE_LIMIT]
        return tuple((("m", m), ("rows", self._rows(g, m, grain_nbytes))) for m in outputs)

    def _rows(self, g: ConvGeometry, m: int, grain_nbytes: int) -> int:
        """Rows of tiles at a time: about eight grains of transforms, yet tiles enough."""
        _, (ah, aw), (th, tw) = self._tiling(g, (("m", m),))
        row_nbytes = ah * aw * (2 * g.c + g.k) * tw * g.dtype.itemsize
        wanted = max(8 * grain_nbytes // row_nbytes, -(-_BLOCK_TILES // tw))
        return -(-th // max(1, round(th / wanted)))

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        (mh, mw), (ah, aw), tiles = self._tiling(g, config)
        count, area, a = math.prod(tiles), ah * aw, max(ah, aw)
        macs = count * (2 * a * area * g.c + area * g.c * g.k + (mh + a) * area * g.k)
        blocked = -(-tiles[0] // int(dict(config)["rows"]))
        moved = count * (3 * area * g.c + 3 * area * g.k) + blocked * area * g.c * g.k
        calls = blocked * (area + mh * mw)
        return Work(g.n * macs, task.nbytes + g.n * moved * g.dtype.itemsize, g.n * calls)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        return sum(aligned(size * g.dtype.itemsize) for size in self._sizes(g, config))

    def max_error(self, task: Task, config: Config) -> float:
        return winograd_error(ConvGeometry.of(task), config)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return (1,)

    def pack(self, xp: ArrayModule, task: Task, config: Config) -> tuple[Array, ...]:
        """U = G w G' per filter, as (a * a, k, c); computed in float64, rounded once."""
        g, w = ConvGeometry.of(task), task.known(1)
        assert w is not None
        (mh, mw), (rh, rw) = self._m(g, config), g.kernel
        (_, g_h, _), (_, g_w, _) = winograd_matrices(mh, rh), winograd_matrices(mw, rw)
        u = np.einsum("ar,kcrs,bs->abkc", g_h, w.astype(np.float64), g_w, optimize=True)
        return (xp.asarray(np.ascontiguousarray(u.reshape(-1, g.k, g.c)).astype(g.dtype)),)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        (mh, _), _, (th, _) = self._tiling(g, config)
        x = buffers.inputs[0]
        assert x is not None
        image, *scratch = self._arrays(g, config, buffers.workspace)
        padded = image.reshape(g.c, *self._padded(g, config))
        (top, left), (height, width) = g.begin, g.spatial
        inner = padded[:, top : top + height, left : left + width]
        runs: list[Run | None] = []
        for index in range(g.n):
            runs.append(partial(_fill, padded, inner, x[index]))
            for rows in blocks(th, int(dict(config)["rows"])):
                made = slice(rows.start * mh, min(rows.stop * mh, g.output[0]))
                y = buffers.outputs[0][index, :, made]
                runs.append(self._block(xp, g, config, padded, rows, scratch, buffers.packed[0], y))
                runs.append(buffers.finish((index, slice(None), made)))
        return in_order(runs)

    def _block(
        self,
        xp: ArrayModule,
        g: ConvGeometry,
        config: Config,
        padded: Array,
        rows: slice,
        scratch: Sequence[Array],
        u: Array,
        y: Array,
    ) -> Run:
        """Some rows of tiles: transform, multiply, transform back, put in place."""
        (mh, mw), (ah, aw), (_, tw) = self._tiling(g, config)
        th = rows.stop - rows.start
        tiles = th * tw
        at_h, _, bt_h = self._matrices(xp, g, config, 0)
        at_w, _, bt_w = self._matrices(xp, g, config, 1)
        ping, pong, products = scratch
        seen = _tiles(xp, padded[:, rows.start * mh :], (mh, mw), (ah, aw), (th, tw))

        def view(array: Array, *shape: int) -> Array:
            return array[: math.prod(shape)].reshape(shape)

        inputs, outputs = g.c * tiles, g.k * tiles
        gathered = view(ping, ah, aw, g.c, th, tw)
        spread = view(pong, mh, mw, g.k, th, tw)
        assembled = view(products, g.k, th, mh, tw, mw)
        whole = assembled.reshape(g.k, th * mh, tw * mw)[:, : y.shape[1], : y.shape[2]]

        def multiply(a: Array, b: Array, out: Array) -> Run:
            return partial(xp.matmul, a, b, out=out)

        return in_order(
            [
                copying([(gathered, seen)]),
                multiply(bt_h, view(ping, ah, aw * inputs), view(pong, ah, aw * inputs)),
                multiply(bt_w, view(pong, ah, aw, inputs), view(ping, ah, aw, inputs)),
                multiply(u, view(ping, ah * aw, g.c, tiles), view(products, ah * aw, g.k, tiles)),
                multiply(at_h, view(products, ah, aw * outputs), view(ping, mh, aw * outputs)),
                multiply(at_w, view(ping, mh, aw, outputs), view(pong, mh, mw, outputs)),
                copying([(assembled, spread.transpose(2, 3, 0, 4, 1)), (y, whole)]),
            ]
        )

    def _matrices(
        self, xp: ArrayModule, g: ConvGeometry, config: Config, axis: int
    ) -> tuple[Array, ...]:
        matrices = winograd_matrices(self._m(g, config)[axis], g.kernel[axis])
        return tuple(xp.asarray(matrix, dtype=g.dtype) for matrix in matrices)

    @staticmethod
    def _m(g: ConvGeometry, config: Config) -> tuple[int, int]:
        m = int(dict(config)["m"])
        return tuple(m if taps > 1 else 1 for taps in g.kernel)  # type: ignore[return-value]

    def _tiling(
        self, g: ConvGeometry, config: Config
    ) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Outputs per tile, tile size and number of tiles, each (height, width)."""
        m = self._m(g, config)
        a = (m[0] + g.kernel[0] - 1, m[1] + g.kernel[1] - 1)
        return m, a, (-(-g.output[0] // m[0]), -(-g.output[1] // m[1]))

    def _padded(self, g: ConvGeometry, config: Config) -> tuple[int, int]:
        """Height and width of the padded image, a whole number of tiles."""
        m, _, count = self._tiling(g, config)
        height, width = (
            max(t * m_ + taps - 1, lo + size)
            for t, m_, taps, lo, size in zip(count, m, g.kernel, g.begin, g.spatial, strict=True)
        )
        return height, width

    def _sizes(self, g: ConvGeometry, config: Config) -> tuple[int, ...]:
        """Elements of each workspace array: padded image, ping, pong, products (later output)."""
        (mh, mw), (ah, aw), (th, tw) = self._tiling(g, config)
        tiles = min(int(dict(config)["rows"]), th) * tw
        return (
            g.c * math.prod(self._padded(g, config)),
            tiles * max(ah * aw * g.c, mh * aw * g.k),
            tiles * max(ah * aw * g.c, mh * mw * g.k),
            tiles * ah * aw * g.k,
        )

    def _arrays(self, g: ConvGeometry, config: Config, workspace: Array) -> list[Array]:
        arrays, offset = [], 0
        for size in self._sizes(g, config):
            array, offset = take(workspace, offset, (size,), g.dtype)
            arrays.append(array)
        return arrays


def winograd_error(g: ConvGeometry, config: Config) -> float:
    """Error that a tile size is expected to add, relative to the largest output."""
    m = int(dict(config)["m"])
    tiles = (m + taps - 1 if taps > 1 else 1 for taps in g.kernel)
    grown = math.prod(AMPLIFICATION.get(tile, 10.0) for tile in tiles)
    return _DIRECT_ERROR * (grown - 1) * rounding(g.dtype)


def _fill(padded: Array, inner: Array, image: Array) -> None:
    padded.fill(0)
    inner[...] = image


def _tiles(
    xp: ArrayModule,
    padded: Array,
    m: tuple[int, int],
    a: tuple[int, int],
    tiles: tuple[int, int],
) -> Array:
    """View (ah, aw, c, th, tw) of overlapping tiles of a (c, h, w) image."""
    sc, sh, sw = padded.strides
    shape = (*a, padded.shape[0], *tiles)
    strides = (sh, sw, sc, sh * m[0], sw * m[1])
    return xp.lib.stride_tricks.as_strided(padded, shape=shape, strides=strides)
