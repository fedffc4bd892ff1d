"""Winograd convolution of volumes: of pictures whose channels are those of neighbouring slices."""

from __future__ import annotations

from dataclasses import replace

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.conv_winograd import ConvWinograd
from mnnpy.backends.numba_cpu.convolutions import epilogue_of
from mnnpy.backends.numba_cpu.moves import cleared_ends
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.shape_math import Window
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry


class ConvWinogradVolume(ConvWinograd):
    """F(m, r) along height and width; taps in depth are more channels."""

    __slots__ = ()
    scheme = "conv_winograd_volume"
    axes = (3,)

    def geometry(self, task: Task) -> ConvGeometry:
        return ConvGeometry.of(task)

    def pictures(self, task: Task) -> ConvGeometry:
        return _stacked(self.geometry(split_anchored(task).task))

    def unfit(self, g: ConvGeometry) -> str | None:
        if g.strides[0] > 1 or g.dilations[0] > 1 or g.c % self.lanes:
            return f"{g.c} channels, in strides or dilated in depth"
        return ConvWinograd.unfit(self, _stacked(g))

    def picture_weights(self, w: Array) -> Array:
        k, c, depth, *taps = w.shape
        return w.swapaxes(1, 2).reshape(k, depth * c, *taps)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, g = split_anchored(task), self.geometry(split_anchored(task).task)
        t = self.tiling(task, config)
        t = replace(t, n=g.output[0], blocks=-(-t.blocks // g.n))
        read = (anchored.source, *epilogue_of(task, anchored).added)
        source, *added = (a for p in read if (a := buffers.inputs[p]) is not None)
        target = buffers.outputs[0]
        x = Blocked.of_volume(anchored.task.tensor(0), source[0])
        written = [Blocked.of_volume(task.output(), array[0]) for array in (target, *added)]
        w = replace(self.winograd(task, config, t, x, written), ahead=x.halo - g.begin[0])
        calls = [
            call
            for sample in zip(source, target, *added, strict=True)
            for call in self.calls(w, config, buffers, sample)
        ]
        return NativeSequence((*calls, *cleared_ends(self, target, w.y.halo)))


def _stacked(g: ConvGeometry) -> ConvGeometry:
    """The convolution of volumes as one of pictures."""
    w = g.window
    sizes = w.kernel[1:], w.strides[1:], w.dilations[1:]
    window = Window(*sizes, w.begin[1:], w.end[1:], w.output[1:])
    return replace(
        g,
        n=g.n * g.output[0],
        c=g.c * g.kernel[0],
        spatial=g.spatial[1:],
        output=g.output[1:],
        kernel=g.kernel[1:],
        strides=g.strides[1:],
        dilations=g.dilations[1:],
        begin=g.begin[1:],
        end=g.end[1:],
        window=window,
    )
