"""Convolution in groups: of whole vectors each as product tiles, of a part of a vector by lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_depthwise import DepthwiseKernel
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    pack_bias,
    pack_weights,
    row_choices,
)
from mnnpy.backends.numba_cpu.dense import DenseKernel, blocked_source
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry

_MOST_UNROLLED = 256
"""Terms of one output whose multiplications are written out."""


class ConvGrouped(ConvolutionKernel):
    """Several channels a group, any kernel, stride and dilation."""

    __slots__ = ()
    scheme = "conv_grouped"

    def unfit(self, g: ConvGeometry) -> str | None:
        if g.group == 1 or g.group == g.c == g.k:
            return f"{g.group} groups of {g.c // g.group} channels"
        if self._are_vectors(g):
            return None
        channels, filters = g.c // g.group, g.k // g.group
        if filters % channels or self.lanes % filters:
            return f"groups of {channels} channels and {filters} filters straddle vectors"
        unrolled = channels * g.taps
        return f"{unrolled} terms of an output" if unrolled > _MOST_UNROLLED else None

    def _are_vectors(self, g: ConvGeometry) -> bool:
        return not (g.c // g.group % self.lanes or g.k // g.group % self.lanes)

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = picture_geometry(split_anchored(task).task)
        if not self._are_vectors(g):
            return tuple(_config(rows, 1) for rows in row_choices(g.output[1], 7, 5))
        blocks = g.k // g.group // self.lanes
        vectors = [v for v in (1, 2, 3, 4) if blocks % v == 0]
        return (_config(*choose_tile(device, self.lanes, g.output[1], blocks, vectors)),)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """(blocks of outputs, blocks of a group's channels, r, s, channel, output); the bias."""
        anchored, lanes = split_anchored(task), self.lanes
        w = anchored.task.known(1)
        assert w is not None
        bias = None if anchored.bias is None else task.known(anchored.bias)
        packed = pack_weights(w, min(lanes, w.shape[1]), int(dict(config)["vectors"]) * lanes)
        return packed, pack_bias(bias, len(w), lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        g, epilogue = picture_geometry(anchored.task), epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        source, target = Blocked.of(anchored.task.tensor(0), x), Blocked.of(task.output(), y)
        residuals = tuple(Blocked.of(task.output(), a) for a in added)
        rows, vectors = int(options["rows"]), int(options["vectors"])
        channels, filters = g.c // g.group, g.k // g.group
        kernel: DenseKernel | DepthwiseKernel
        if self._are_vectors(g):
            whole = blocked_source(g, source)
            terms = replace(whole.terms, blocks=channels // self.lanes)
            part = replace(whole, terms=terms)
            kernel = DenseKernel(part, target, residuals, epilogue, rows, vectors, parts=g.group)
        else:
            kernel = DepthwiseKernel(
                g, source, target, residuals, epilogue, rows, channels, filters
            )
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], kernel.units)


def _config(rows: int, vectors: int) -> Config:
    return (("rows", rows), ("vectors", vectors))
