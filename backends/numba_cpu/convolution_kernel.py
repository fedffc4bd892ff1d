"""What the generated convolutions answer alike."""

from __future__ import annotations

from typing import ClassVar

from mnnpy.backends.numba_cpu.blocked import blocked
from mnnpy.backends.numba_cpu.convolutions import epilogue_of, halo_needed, unfit_convolution
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import picture_geometry
from mnnpy.runtime.contracts import Config, Task
from mnnpy.runtime.devices import Device
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry


class ConvolutionKernel(NativeKernel):
    """Weights and bias packed ahead; input, added tensors and output channel-blocked."""

    __slots__ = ()
    operators = (Conv,)
    axes: ClassVar[tuple[int, ...]] = (1, 2)
    """Numbers of spatial axes that it is for."""

    def geometry(self, task: Task) -> ConvGeometry:
        """The numbers of a bare convolution."""
        return picture_geometry(task)

    def unfit(self, g: ConvGeometry) -> str | None:
        """Why the algorithm does not take these sizes; None where it does."""
        raise NotImplementedError(self.scheme)

    def reject(self, task: Task, device: Device) -> str | None:
        anchored = split_anchored(task)
        reason = unfit_convolution(task, anchored, self.axes)
        if reason is not None:
            return reason
        g = self.geometry(anchored.task)
        adds_source = anchored.source in epilogue_of(task, anchored).added
        if adds_source and self.source_layout(g).kind != "blocked":
            return "adds its input, which lies in another layout than the output"
        return self.unfit(g)

    def source_layout(self, g: ConvGeometry) -> Layout:
        """How the input must lie."""
        return blocked(self.lanes, halo_needed(g))

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        anchored = split_anchored(task)
        inputs = [PLAIN] * len(task.inputs)
        for position in epilogue_of(task, anchored).added:
            inputs[position] = blocked(self.lanes)
        inputs[anchored.source] = self.source_layout(self.geometry(anchored.task))
        return tuple(inputs), (blocked(self.lanes),)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        anchored = split_anchored(task)
        return tuple(p for p in (anchored.positions[1], anchored.bias) if p is not None)
