"""Direct convolution: the product tile over every tap, at the rate of the multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    halo_needed,
    is_flat,
    pack_bias,
    pack_weights,
)
from mnnpy.backends.numba_cpu.dense import DenseKernel, Reach, blocked_source, planar_source
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.layouts import Layout
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry

_FEW_CHANNELS = 4

_PAIRED_NBYTES = 4 << 20
"""Weights that are fetched from afar: pairs of their vectors share what is loaded of the input."""

_WORTH_CUTTING = 0.02
"""Part of the rows of taps."""

_NEAR_NBYTES = 1 << 18
"""Weights that leave room for rows in a cache of a megabyte."""


class ConvDirect(ConvolutionKernel):
    """Any kernel, stride, dilation and padding, one group; bias and epilogue inside the store.

    Inputs of a few channels (pictures) are read row by row as they are; others channel-blocked.
    """

    __slots__ = ()
    scheme = "conv_direct"

    def unfit(self, g: ConvGeometry) -> str | None:
        return f"{g.group} groups" if g.group > 1 else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = picture_geometry(split_anchored(task).task)
        blocks, few = -(-g.k // self.lanes), g.c < _FEW_CHANNELS
        far = 4 * g.k * g.c * g.taps >= _PAIRED_NBYTES
        preferred = (4, 2, 1) if few else (2, 1, 3, 4) if far and g.taps > 1 else (1, 2, 3, 4)
        vectors = [v for v in preferred if blocks % v == 0]
        width = g.pixels if is_flat(g) and not few else g.output[1]
        # Loops over the taps of a channel are unrolled and keep factors in registers.
        most = self.jit.cpu.registers // 2 if few else None
        tile = choose_tile(device, self.lanes, width, blocks, vectors, most_sums=most)
        return (_config(*tile),)

    def source_layout(self, g: ConvGeometry) -> Layout:
        if g.c < _FEW_CHANNELS:
            return Layout(halo=halo_needed(g))
        return ConvolutionKernel.source_layout(self, g)

    def work(self, task: Task, config: Config) -> Work:
        g, lanes = picture_geometry(split_anchored(task).task), self.lanes
        height, width = g.output
        lines = Reach.of(g).met(height) if _is_cut(g) else height * g.kernel[0]
        terms = g.n * lines * width * g.kernel[1] * g.c
        return Work(terms * -(-g.k // lanes) * lanes, task.nbytes, 1)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        anchored, lanes = split_anchored(task), self.lanes
        bias = None if anchored.bias is None else task.known(anchored.bias)
        w = anchored.task.known(1)
        assert w is not None
        channels = 1 if w.shape[1] < _FEW_CHANNELS else lanes
        weights = pack_weights(w, channels, int(dict(config)["vectors"]) * lanes)
        return weights, pack_bias(bias, len(w), lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        g, epilogue = picture_geometry(anchored.task), epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        target = Blocked.of(task.output(), y)
        rows_first = _rows_first(g, buffers.packed[0].nbytes, int(options["rows"]))
        residuals = tuple(Blocked.of(task.output(), a) for a in added)
        if x.ndim == anchored.task.tensor(0).rank:
            source = planar_source(g, x.shape)
        else:
            origin = Blocked.of(anchored.task.tensor(0), x)
            open_ = not any(t.halo for t in (origin, target, *residuals))
            if is_flat(g) and open_ and not rows_first:
                origin, target = origin.as_one_row(), target.as_one_row()
                residuals = tuple(r.as_one_row() for r in residuals)
            source = blocked_source(g, origin, cut=_is_cut(g))
        kernel = DenseKernel(
            source,
            target,
            residuals,
            epilogue,
            int(options["rows"]),
            int(options["vectors"]),
            rows_first,
        )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


def _rows_first(g: ConvGeometry, nbytes: int, rows: int) -> bool:
    """Whether weights stay in the near cache while rows pass, and rows are whole tiles."""
    return nbytes <= _NEAR_NBYTES and g.output[1] % rows == 0


def _is_cut(g: ConvGeometry) -> bool:
    """Whether enough rows of taps meet nothing but padding."""
    lines = g.output[0] * g.kernel[0]
    return g.c >= _FEW_CHANNELS and lines - Reach.of(g).met(g.output[0]) > _WORTH_CUTTING * lines


def _config(rows: int, vectors: int) -> Config:
    return (("rows", rows), ("vectors", vectors))
