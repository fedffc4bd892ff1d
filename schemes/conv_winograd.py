"""Winograd convolution F(m, r): fewer multiplications by transforming tiles.

Source: Lavin and Gray, CVPR 2016; matrices in ``winograd_matrices``.
"""

from __future__ import annotations

import math

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task, Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import ConvGeometry, aligned, in_order, is_float, rounding, take
from mnnpy.schemes.winograd_matrices import winograd_matrices

_ERRORS = {3: 1e-6, 4: 1e-6, 5: 1e-5, 6: 2e-5, 7: 3e-5, 8: 3e-5}
"""Tile size of the longer axis -> relative error in float32: the interpolation points decide."""


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
        if max(g.kernel) > 7:
            return f"kernel {g.kernel}: tiles beyond 7 taps lose precision"
        return None if is_float(g.dtype) else f"{g.dtype} is not a plain float"

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        largest = 10 - max(ConvGeometry.of(task).kernel)
        return tuple((("m", m),) for m in (2, 4, 6) if m < largest)

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(task)
        (mh, mw), (ah, aw), tiles = self._tiling(g, config)
        count, a = math.prod(tiles), max(ah, aw)
        area, out = ah * aw, mh * mw
        macs = count * (2 * a * area * g.c + area * g.c * g.k + (mh + a) * area * g.k)
        moved = count * (3 * area * g.c + 3 * area * g.k) + area * g.c * g.k
        return Work(g.n * macs, task.nbytes + g.n * moved * g.dtype.itemsize, g.n * (area + out))

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(task)
        return sum(aligned(size * g.dtype.itemsize) for size in self._sizes(g, config))

    def max_error(self, task: Task, config: Config) -> float:
        g = ConvGeometry.of(task)
        _, tile, _ = self._tiling(g, config)
        return _ERRORS.get(max(tile), 1e-4) * rounding(g.dtype)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return (1,) if task.known(1) is not None else ()

    def pack(self, xp: ArrayModule, task: Task, config: Config) -> tuple[Array, ...]:
        w = task.known(1)
        if w is None:
            return ()
        return (xp.asarray(self._transform_filter(np, ConvGeometry.of(task), config, w)),)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        (mh, mw), (ah, aw), (th, tw) = self._tiling(g, config)
        tiles = th * tw
        at_h, _, bt_h = self._matrices(xp, g, config, 0)
        at_w, _, bt_w = self._matrices(xp, g, config, 1)
        x, w = buffers.inputs[:2]
        assert x is not None
        packed = buffers.packed[0] if buffers.packed else None
        image, ping, pong, products = self._arrays(g, config, buffers.workspace)
        height, width = self._padded(g, config)
        padded = image[: g.c * height * width].reshape(g.c, height, width)
        top, left = g.begin
        inner = padded[:, top : top + g.spatial[0], left : left + g.spatial[1]]
        seen = _tiles(xp, padded, (mh, mw), (ah, aw), (th, tw))

        def view(array: Array, *shape: int) -> Array:
            return array[: math.prod(shape)].reshape(shape)

        gathered = view(ping, ah, aw, g.c, th, tw)
        rows = view(ping, ah, aw * g.c * tiles)
        by_row = view(pong, ah, aw * g.c * tiles)
        data = view(ping, ah, aw, g.c * tiles)
        frequencies = view(ping, ah * aw, g.c, tiles)
        product = view(products, ah * aw, g.k, tiles)
        half = view(ping, mh, aw * g.k * tiles)
        spread = view(pong, mh, mw, g.k, th, tw)
        assembled = view(image, g.k, th, mh, tw, mw)
        whole = assembled.reshape(g.k, th * mh, tw * mw)[:, : g.output[0], : g.output[1]]
        y = buffers.outputs[0]

        def weights() -> Array:
            """Those that the network itself computes are transformed on every run."""
            return packed if packed is not None else self._transform_filter(xp, g, config, w)

        def transform(source: Array, target: Array) -> Run:
            def run() -> None:
                padded.fill(0)
                inner[...] = source
                gathered[...] = seen
                xp.matmul(bt_h, rows, out=by_row)
                xp.matmul(bt_w, by_row.reshape(ah, aw, -1), out=data)
                xp.matmul(weights(), frequencies, out=product)
                xp.matmul(at_h, product.reshape(ah, -1), out=half)
                xp.matmul(at_w, half.reshape(mh, aw, -1), out=spread.reshape(mh, mw, -1))
                assembled[...] = spread.transpose(2, 3, 0, 4, 1)
                target[...] = whole

            return run

        runs: list[Run | None] = []
        for index in range(g.n):
            runs.extend((transform(x[index], y[index]), buffers.finish((index,))))
        return in_order(runs)

    def _transform_filter(
        self, xp: ArrayModule, g: ConvGeometry, config: Config, w: Array
    ) -> Array:
        """U = G w G' per filter, as (a * a, k, c); computed in float64, rounded once."""
        _, g_h, _ = winograd_matrices(self._m(g, config)[0], g.kernel[0])
        _, g_w, _ = winograd_matrices(self._m(g, config)[1], g.kernel[1])
        wide = w.astype(np.float64)
        u = xp.einsum("ar,kcrs,bs->abkc", xp.asarray(g_h), wide, xp.asarray(g_w), optimize=True)
        return xp.ascontiguousarray(u.reshape(-1, g.k, g.c)).astype(g.dtype)

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

    def _sizes(self, g: ConvGeometry, config: Config) -> tuple[int, int, int, int]:
        """Elements of each workspace array: image (later the output), ping, pong, products."""
        (mh, mw), (ah, aw), (th, tw) = self._tiling(g, config)
        tiles = th * tw
        height, width = self._padded(g, config)
        return (
            max(g.c * height * width, g.k * tiles * mh * mw),
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
