"""Winograd convolution on blocked tensors, a few rows of tiles at a time.

Per block of tiles: transform the input, multiply, and transform back. What lies between stays in a
near cache. Where blocks are small and enough for all threads, each is one thread's; else all of
them share the transform (by channels) and the products (by output channels) of block after block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    aligned_floats,
    epilogue_of,
    pack_bias,
    pack_weights,
)
from mnnpy.backends.numba_cpu.native import NativeCall, NativeSequence
from mnnpy.backends.numba_cpu.tiles import TALLEST, choose_tile
from mnnpy.backends.numba_cpu.winograd_code import (
    Winograd,
    block_code,
    product_code,
    transform_code,
)
from mnnpy.backends.numba_cpu.winograd_tile import Tiling
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.conv_winograd import winograd_error
from mnnpy.schemes.geometry import ConvGeometry
from mnnpy.schemes.winograd_matrices import winograd_matrices

_FEW_TILES, _MANY_TILES = 19, 49
"""Tiles that share a pass over the weights, many where these come from far."""
_FAR_NBYTES = 8 << 20
"""Weights that are fetched from beyond the caches on every pass."""
_NEAR_NBYTES = 3 << 17
"""Transformed data of a block, where that takes more tiles."""
_TILE_LIMIT = 9
_FULL_PACE = 7
_HINDERING = 0.5
"""Multiply-adds by which a byte of weights from memory holds up the others meanwhile."""
_STACK_NBYTES = 1 << 20
"""Everything that a block keeps on the stack."""
_ALONE_NBYTES = 700 << 10
"""Transformed data of a block, on the stack of a thread that does the block alone."""


class ConvWinograd(ConvolutionKernel):
    """F(m, r) for kernels of stride one; an axis with one tap is left alone."""

    __slots__ = ()
    scheme = "conv_winograd"

    def pictures(self, task: Task) -> ConvGeometry:
        """The convolution as one of pictures."""
        return self.geometry(split_anchored(task).task)

    def unfit(self, g: ConvGeometry) -> str | None:
        if max(g.strides) > 1 or max(g.dilations) > 1 or g.group > 1:
            return f"strides {g.strides}, dilations {g.dilations}, group {g.group}: needs ones"
        if g.taps == 1 or max(g.kernel) > 7:
            return f"kernel {g.kernel}"
        if g.c < self.lanes:
            return "too few input channels"
        return None if self._sizes(g) else f"rows of {g.output[1]} pixels overflow the stack"

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = self.pictures(task)
        return tuple(self._config(g, m, device) for m in self._sizes(g))

    def packing_config(self, config: Config) -> Config:
        return tuple(entry for entry in config if entry[0] in ("m", "vectors"))

    def _sizes(self, g: ConvGeometry) -> list[int]:
        """Outputs per tile whose tile is precise and whose row of products fits the stack."""
        sizes = []
        for m in (2, 4, 5, 6):
            mh, mw = (m if taps > 1 else 1 for taps in g.kernel)
            area = (mh + g.kernel[0] - 1) * (mw + g.kernel[1] - 1)
            row_nbytes = area * -(-g.output[1] // mw) * self.lanes * 4
            if m + max(g.kernel) - 1 < _TILE_LIMIT and row_nbytes <= _STACK_NBYTES:
                sizes.append(m)
        return sizes

    def _config(self, g: ConvGeometry, m: int, device: Device) -> Config:
        """Into how many blocks rows of tiles are cut, and a block into how many shares of the
        outputs, each of which one thread does alone; 0 where all threads do a block together,
        because its data do not fit a near cache.
        """
        threads, outputs = device.threads, -(-g.k // self.lanes)
        mh, mw = (m if taps > 1 else 1 for taps in g.kernel)
        high, wide = g.n * -(-g.output[0] // mh), -(-g.output[1] // mw)
        area = math.prod(m_ + taps - 1 for m_, taps in zip((mh, mw), g.kernel, strict=True))
        tile_nbytes = area * g.c * 4
        least = _least_tiles(tile_nbytes * g.k)
        together = max(least, _NEAR_NBYTES // tile_nbytes)
        count = min(high, max(1, round(high * wide / together)))
        even = min(high, -(-count // threads) * threads)
        blocks = even if high // even * wide >= least else count
        shares = min(threads // math.gcd(blocks, threads), outputs)
        sums_nbytes = area * self.lanes * 4
        most_tiles = min(_ALONE_NBYTES // tile_nbytes, _STACK_NBYTES // (tile_nbytes + sums_nbytes))
        if -(-high // blocks) * wide > most_tiles:
            shares, blocks = 0, count
        tiles = -(-high // blocks) * wide
        free = _STACK_NBYTES - (tiles * tile_nbytes if shares else 0)
        most = min(outputs // threads, free // (tiles * sums_nbytes))
        # Weights that one tile passes come from afar: two vectors of them for each load of data.
        preferred = (2, 1, 3, 4) if tiles <= TALLEST else (1, 2, 3, 4)
        vectors = [v for v in preferred if outputs % v == 0 and v <= max(1, most)]
        height, width = choose_tile(device, self.lanes, tiles, outputs, vectors)
        tile = (("height", height), ("vectors", width))
        return (("blocks", blocks), ("m", m), ("shares", shares), *tile)

    def work(self, task: Task, config: Config) -> Work:
        t, options = self.tiling(task, config), dict(config)
        sums = min(int(options["height"]), t.most) * int(options["vectors"])
        # Where few sums share a weight, loading it sets the pace, not multiplying.
        products = t.area * t.c * t.k * max(_FULL_PACE, sums) // sums
        transforms = t.area * (sum(t.a) * t.c + (t.a[1] + t.m[0]) * t.k)
        weights = t.area * t.c * t.k * 4
        passes = t.blocks if weights > _FAR_NBYTES else 1
        streamed = passes * weights
        macs = t.n * t.tiles * (products + transforms // 2) + int(_HINDERING * streamed)
        passed = 0 if options["shares"] else 4 * t.blocks * t.data_elements
        read = task.nbytes - t.c * t.k * math.prod(t.kernel) * 4
        return Work(macs, read, 2 * t.blocks, passed, streamed)

    def max_error(self, task: Task, config: Config) -> float:
        return winograd_error(self.pictures(task), config)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return 0 if dict(config)["shares"] else self.tiling(task, config).data_elements * 4

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """U = G w G' as (groups of outputs, frequencies, c, width); bias in vectors."""
        anchored, t = split_anchored(task), self.tiling(task, config)
        w = anchored.task.known(1)
        assert w is not None
        (_, g_h, _), (_, g_w, _) = (
            winograd_matrices(m, r) for m, r in zip(t.m, t.kernel, strict=True)
        )
        transform = np.kron(g_h, g_w).astype(np.float32)
        width = int(dict(config)["vectors"]) * self.lanes
        taps = pack_weights(self.picture_weights(w), t.c, width).reshape(
            -1, transform.shape[1], t.c * width
        )
        u = aligned_floats((len(taps), t.area, t.c, width))
        np.matmul(transform, taps, out=u.reshape(len(taps), t.area, -1))
        bias = None if anchored.bias is None else task.known(anchored.bias)
        return u, pack_bias(bias, t.k, self.lanes)

    def picture_weights(self, w: Array) -> Array:
        """(k, c, *taps) as those of the convolution of pictures."""
        return w

    def tiling(self, task: Task, config: Config) -> Tiling:
        """Sizes, as configured."""
        g, options = self.pictures(task), dict(config)
        m = int(options["m"])
        return Tiling(
            g.n,
            g.c,
            g.k,
            (g.kernel[0], g.kernel[1]),
            (m if g.kernel[0] > 1 else 1, m if g.kernel[1] > 1 else 1),
            (g.output[0], g.output[1]),
            int(options["blocks"]),
            self.lanes,
        )

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, t = split_anchored(task), self.tiling(task, config)
        source, target = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [
            a for p in epilogue_of(task, anchored).added if (a := buffers.inputs[p]) is not None
        ]
        assert source is not None
        x = Blocked.of(anchored.task.tensor(0), source)
        written = [Blocked.of(task.output(), array) for array in (target, *added)]
        w = self.winograd(task, config, t, x, written)
        return NativeSequence(self.calls(w, config, buffers, [source, target, *added]))

    def winograd(
        self, task: Task, config: Config, t: Tiling, x: Blocked, written: Sequence[Blocked]
    ) -> Winograd:
        """Everything that the code depends on."""
        g, options, (y, *residuals) = self.pictures(task), dict(config), written
        epilogue = epilogue_of(task, split_anchored(task))
        begin = g.begin[0], g.begin[1]
        tile = int(options["height"]), int(options["vectors"])
        return Winograd(t, x, y, tuple(residuals), epilogue, begin, *tile)

    def calls(
        self,
        w: Winograd,
        config: Config,
        buffers: Buffers,
        arrays: Sequence[Array],
    ) -> tuple[NativeCall, ...]:
        """The convolution of (x, y, *added)."""
        t, (x, *written), (u, bias) = w.t, arrays, buffers.packed
        shares = int(dict(config)["shares"])
        if shares:
            units = t.blocks * shares
            return (self.call(block_code(w, shares), [x, u, bias, *written], units),)
        data, calls = buffers.workspace, []
        for block in range(t.blocks):
            rows, first = len(t.rows(block)), np.array([t.rows(block).start])
            read = [x, data, first]
            calls.append(self.call(transform_code(w, rows), read, t.channel_blocks * rows))
            read = [data, u, bias, first, *written]
            calls.append(self.call(product_code(w, rows), read, w.groups))
        return tuple(calls)


def _least_tiles(weights_nbytes: int) -> int:
    """Tiles that pay for a pass over the weights."""
    return _MANY_TILES if weights_nbytes > _FAR_NBYTES else _FEW_TILES
