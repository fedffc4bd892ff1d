"""1x1 convolution by one level of Strassen's product, on pairs of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    aligned_floats,
    epilogue_of,
    pack_bias,
    pack_weights,
)
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.native import NativeCall, NativeSequence
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.backends.numba_cpu.strassen_code import ROUNDING, pack_factors, strassen_calls
from mnnpy.backends.numba_cpu.strassen_tile import PRODUCTS, SUMS, Grid, Strassen
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry

_NEAR_NBYTES = 1 << 18
"""Sums of weights that leave room for rows in a cache of a megabyte."""

_SHARED_NBYTES = 1 << 20
"""Sums of weights that every thread may read for itself."""

_CHUNK_PAIRS = 4
"""Pairs of rows that pay for reading weights."""

_ROW_NBYTES = 1 << 17
"""Sums of a pair of rows that lie on the stack."""


class ConvStrassen(ConvolutionKernel):
    """Channels halved by blocks, pixels by rows; an eighth of the multiply-adds is saved.

    A last block of outputs without a partner is a direct convolution.
    """

    __slots__ = ()
    scheme = "conv_strassen"

    def unfit(self, g: ConvGeometry) -> str | None:
        if g.taps > 1 or g.group > 1 or g.needs_padding:
            return "not a 1x1 convolution without padding, in one group"
        if g.c % (2 * self.lanes):
            return f"{g.c} input channels are not two halves of whole vectors"
        if g.k <= self.lanes:
            return f"{g.k} output channels"
        return "one row" if g.output[0] < 2 else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = picture_geometry(split_anchored(task).task)
        blocks = self._paired(g) // 2 // self.lanes
        vectors = [v for v in (1, 2, 3, 4) if blocks % v == 0]
        rows, width = choose_tile(device, self.lanes, g.output[1], blocks, vectors)
        chunks = self._chunks(g, device.threads)
        tile = (("rows", rows), ("vectors", width))
        return ((("alone", g.output[0] % 2), ("chunks", chunks), *tile),)

    def _chunks(self, g: ConvGeometry, threads: int) -> int:
        """Of rows, one per thread, where these are many and weights few: no thread then reads what
        another has written. Threads that get whole pictures do not need them.
        """
        near_all = PRODUCTS * g.c * g.k <= _SHARED_NBYTES
        pairs, alone = divmod(g.output[0], 2)
        whole = not alone and pairs % threads == 0 and pairs >= _CHUNK_PAIRS * threads
        return threads if near_all and whole and g.n % threads else 1

    def packing_config(self, config: Config) -> Config:
        return tuple(entry for entry in config if entry[0] in ("alone", "vectors"))

    def work(self, task: Task, config: Config) -> Work:
        g, lanes = picture_geometry(split_anchored(task).task), self.lanes
        paired = g.output[0] // 2 * 2 * self._paired(g)
        unpaired = g.output[0] * -(-g.k // lanes) * lanes - paired
        macs = g.n * g.output[1] * g.c * (paired * PRODUCTS // 8 + unpaired)
        sums = self._sums_nbytes(g)
        alone = _is_near(g) or int(dict(config)["chunks"]) > 1
        return Work(macs, task.nbytes + 2 * sums, 1, 0 if alone else sums)

    def _paired(self, g: ConvGeometry) -> int:
        """Output channels in blocks that have a partner, filled up to whole blocks."""
        return -(-g.k // self.lanes) // 2 * 2 * self.lanes

    def max_error(self, task: Task, config: Config) -> float:
        return ROUNDING * math.sqrt(picture_geometry(split_anchored(task).task).c)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = picture_geometry(split_anchored(task).task)
        return 0 if _is_near(g) else self._sums_nbytes(g)

    @staticmethod
    def _sums_nbytes(g: ConvGeometry) -> int:
        return SUMS * 4 * g.n * g.pixels * g.c // 4

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Sums of quarters of the weights as (panels of k / 2, factors, c / 2, width); the bias;
        the weights of a last block alone.
        """
        anchored, lanes = split_anchored(task), self.lanes
        g, w = picture_geometry(anchored.task), anchored.task.known(1)
        assert w is not None
        paired = self._paired(g)
        matrix = aligned_floats((g.c, paired))
        matrix[:, g.k :] = 0
        matrix[:, : g.k] = w[:paired, :, 0, 0].T
        bias = None if anchored.bias is None else task.known(anchored.bias)
        options = dict(config)
        width, alone = int(options["vectors"]) * lanes, bool(options["alone"])
        packed = pack_factors(matrix, lanes, width, alone), pack_bias(bias, g.k, lanes)
        return packed if g.k <= paired else (*packed, pack_weights(w[paired:], lanes, lanes))

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, lanes = split_anchored(task), self.lanes
        g, epilogue = picture_geometry(anchored.task), epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        (height, width), options = g.output, dict(config)
        rows, vectors = int(options["rows"]), int(options["vectors"])
        p = Strassen(
            lanes,
            g.n,
            height // 2,
            width,
            width if options["alone"] else 0,
            g.c // 2 // lanes,
            self._paired(g) // 2 // (vectors * lanes),
            Grid.of(Blocked.of(anchored.task.tensor(0), x)).strided(g.strides),
            Grid.of(Blocked.of(task.output(), y)),
            tuple(Grid.of(Blocked.of(task.output(), a)) for a in added),
            epilogue,
            rows,
            vectors,
            _is_near(g),
            int(options["chunks"]),
        )
        factors, bias, *rest = buffers.packed
        arrays = [x, buffers.workspace, factors, bias, y, *added]
        calls = strassen_calls(self, p, arrays)
        for weights, image in product(rest, range(g.n)):
            source, *written = (array[image : image + 1] for array in (x, y, *added))
            calls.append(self._last_block(g, epilogue, rows, source, weights, bias, written))
        return NativeSequence(tuple(calls))

    def _last_block(
        self,
        g: ConvGeometry,
        epilogue: Epilogue,
        rows: int,
        x: Array,
        weights: Array,
        bias: Array,
        written: Sequence[Array],
    ) -> NativeCall:
        """The direct convolution of one image to its last block of outputs."""
        paired = self._paired(g)
        tensors = tuple(_one_image(g.k - paired, g.output, array) for array in written)
        source = blocked_source(g, _one_image(g.c, g.spatial, x))
        kernel = DenseKernel(source, tensors[0], tensors[1:], epilogue, rows, 1)
        y, *added = (array[:, -1:] for array in written)
        return self.call(kernel.ir(), [x, weights, bias[paired:], y, *added], kernel.units)


def _one_image(channels: int, size: tuple[int, ...], array: Array) -> Blocked:
    height, width = size
    return Blocked(1, channels, height, width, array.shape[-1], (array.shape[3] - width) // 2)


def _is_near(g: ConvGeometry) -> bool:
    """Whether weights stay in a near cache while rows pass, one pair's sums on the stack."""
    sums_nbytes = SUMS * 4 * g.output[1] * g.c // 2
    return PRODUCTS * g.c * g.k <= _NEAR_NBYTES and sums_nbytes <= _ROW_NBYTES
