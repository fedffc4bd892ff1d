"""A Winograd convolution and the maximum of the windows behind it, which tiles hold whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_chain import Link
from mnnpy.backends.numba_cpu.conv_pool import (
    PooledKernel,
    maximum_macs,
    pooled_parts,
    pooled_source,
)
from mnnpy.backends.numba_cpu.conv_winograd import ConvWinograd
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.schemes.geometry import ConvGeometry


class ConvWinogradPooled(PooledKernel):
    """Of the outputs of a tile only the maxima of its windows are stored."""

    __slots__ = ()
    scheme = "conv_winograd_pooled"

    @property
    def convolution(self) -> ConvWinograd:
        return ConvWinograd(self.jit)

    def unfit(self, conv: Link, pool: ConvGeometry, device: Device) -> str | None:
        edge = pool.kernel[0]
        if {*pool.kernel, *pool.strides} != {edge} or max(pool.dilations) > 1:
            return f"windows {pool.kernel}, strides {pool.strides}: they are not side by side"
        if any(pool.begin) or any(
            count * edge > size for count, size in zip(pool.output, pool.spatial, strict=True)
        ):
            return "windows reach beyond the picture"
        return None if self._windowed(conv, pool, device) else f"no tile holds windows of {edge}"

    def _windowed(self, conv: Link, pool: ConvGeometry, device: Device) -> list[Config]:
        """Configurations whose tiles hold whole windows."""
        found = self.convolution.configs(conv.task, device)
        whole = min(conv.geometry.kernel) > 1
        return [c for c in found if whole and int(dict(c)["m"]) % pool.kernel[0] == 0]

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        return self._windowed(*pooled_parts(task), device)

    def packing_config(self, config: Config) -> Config:
        return self.convolution.packing_config(config)

    def work(self, task: Task, config: Config) -> Work:
        conv, pool = pooled_parts(task)
        work = self.convolution.work(conv.task, config)
        stored = conv.task.output().nbytes - task.output().nbytes
        return replace(work, macs=work.macs + maximum_macs(pool), nbytes=work.nbytes - stored)

    def max_error(self, task: Task, config: Config) -> float:
        return self.convolution.max_error(pooled_parts(task)[0].task, config)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return self.convolution.workspace_nbytes(pooled_parts(task)[0].task, config)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        conv, pool = pooled_parts(task)
        x, y = buffers.inputs[pooled_source(conv)], buffers.outputs[0]
        assert x is not None
        read, written = (
            Blocked.of(tensor, array)
            for tensor, array in ((conv.anchored.task.tensor(0), x), (task.output(), y))
        )
        winograd = self.convolution
        t = winograd.tiling(conv.task, config)
        w = winograd.winograd(conv.task, config, t, read, [written])
        w = replace(w, pool=pool.kernel[0])
        return NativeSequence(winograd.calls(w, config, buffers, [x, y]))
