"""1x1 convolution by one level of Strassen's product, on pairs of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    is_flat,
    pack_bias,
    row_choices,
)
from mnnpy.backends.numba_cpu.strassen_code import ROUNDING, pack_factors, strassen_run
from mnnpy.backends.numba_cpu.strassen_tile import PRODUCTS, SUMS, Grid, Strassen
from mnnpy.runtime.contracts import Buffers, Config, Device, Run, Task, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry

_NEAR_NBYTES = 1 << 18
"""Sums of weights that leave room for rows in a cache of a megabyte."""

_ROW_NBYTES = 1 << 17
"""Sums of a pair of rows that lie on the stack."""


class ConvStrassen(ConvolutionKernel):
    """Channels halved by blocks, pixels by rows; an eighth of the multiply-adds is saved."""

    __slots__ = ()
    scheme = "conv_strassen"

    def unfit(self, g: ConvGeometry) -> str | None:
        if not is_flat(g) or g.group > 1:
            return "not a 1x1 convolution of stride one, without padding, in one group"
        if g.c % (2 * self.lanes) or g.k % (2 * self.lanes):
            return f"{g.c} and {g.k} channels are not two halves of whole vectors"
        return "one row" if g.output[0] < 2 else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = ConvGeometry.of(split_anchored(task).task)
        return tuple((("rows", rows),) for rows in row_choices(g.output[1], 14, 7))

    def work(self, task: Task, config: Config) -> Work:
        g = ConvGeometry.of(split_anchored(task).task)
        rows = g.output[0]
        macs = task.macs * (rows // 2 * 2 * PRODUCTS // 8 + rows % 2) // rows
        return Work(macs, task.nbytes + 2 * self._sums_nbytes(g), 1)

    def max_error(self, task: Task, config: Config) -> float:
        return ROUNDING * math.sqrt(ConvGeometry.of(split_anchored(task).task).c)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        g = ConvGeometry.of(split_anchored(task).task)
        return 0 if _is_near(g) else self._sums_nbytes(g)

    @staticmethod
    def _sums_nbytes(g: ConvGeometry) -> int:
        return SUMS * 4 * g.n * g.pixels * g.c // 4

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Sums of quarters of the weights as (k / 2 blocks, factors, c / 2, lanes); the bias."""
        anchored, lanes = split_anchored(task), self.lanes
        w = anchored.task.known(1)
        assert w is not None
        rows = ConvGeometry.of(anchored.task).output[0]
        packed = pack_factors(w.reshape(w.shape[:2]).T, lanes, rows % 2)
        bias = None if anchored.bias is None else task.known(anchored.bias)
        return packed, pack_bias(bias, len(w), lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, lanes = split_anchored(task), self.lanes
        g, epilogue = ConvGeometry.of(anchored.task), epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        height, width = g.output
        product = Strassen(
            lanes,
            g.n,
            height // 2,
            width,
            width if height % 2 else 0,
            g.c // 2 // lanes,
            g.k // 2 // lanes,
            Grid.of(Blocked.of(anchored.task.tensor(0), x)),
            Grid.of(Blocked.of(task.output(), y)),
            tuple(Grid.of(Blocked.of(task.output(), a)) for a in added),
            epilogue,
            int(dict(config)["rows"]),
            1,
            _is_near(g),
        )
        return strassen_run(self, product, [x, buffers.workspace, *buffers.packed, y, *added])


def _is_near(g: ConvGeometry) -> bool:
    """Whether weights stay in a near cache while rows pass, one pair's sums on the stack."""
    sums_nbytes = SUMS * 4 * g.output[1] * g.c // 2
    return PRODUCTS * g.c * g.k <= _NEAR_NBYTES and sums_nbytes <= _ROW_NBYTES
