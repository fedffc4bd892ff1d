"""Direct convolution of volumes (n, c, d, h, w): their slices are pictures."""

from __future__ import annotations

from collections.abc import Sequence

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import epilogue_of, pack_bias, pack_weights
from mnnpy.backends.numba_cpu.dense import DenseKernel, Reach, volume_source
from mnnpy.backends.numba_cpu.moves import cleared_ends
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry


class ConvVolume(ConvolutionKernel):
    """Any kernel, stride, dilation and padding, one group; bias and epilogue inside the store."""

    __slots__ = ()
    scheme = "conv_volume"
    axes = (3,)

    def geometry(self, task: Task) -> ConvGeometry:
        return ConvGeometry.of(task)

    def unfit(self, g: ConvGeometry) -> str | None:
        return f"{g.group} groups" if g.group > 1 else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = self.geometry(split_anchored(task).task)
        blocks = -(-g.k // self.lanes)
        vectors = [v for v in (1, 2, 3, 4) if blocks % v == 0]
        rows, width = choose_tile(device, self.lanes, g.output[2], blocks, vectors)
        return ((("rows", rows), ("vectors", width)),)

    def work(self, task: Task, config: Config) -> Work:
        g, lanes = self.geometry(split_anchored(task).task), self.lanes
        depth, height, width = g.output
        taps = Reach.of(g).met(depth) * height * g.kernel[1] * width * g.kernel[2]
        return Work(g.n * taps * g.c * -(-g.k // lanes) * lanes, task.nbytes, 1)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        anchored, lanes = split_anchored(task), self.lanes
        bias = None if anchored.bias is None else task.known(anchored.bias)
        w = anchored.task.known(1)
        assert w is not None
        weights = pack_weights(w, lanes, int(dict(config)["vectors"]) * lanes)
        return weights, pack_bias(bias, len(w), lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        g, epilogue = self.geometry(anchored.task), epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        kernel = DenseKernel(
            volume_source(g, Blocked.of_volume(anchored.task.tensor(0), x[0])),
            Blocked.of_volume(task.output(), y[0]),
            tuple(Blocked.of_volume(task.output(), a[0]) for a in added),
            epilogue,
            int(options["rows"]),
            int(options["vectors"]),
        )
        ir = kernel.ir()
        calls = [
            self.call(ir, [source, *buffers.packed, *written], kernel.units)
            for source, *written in zip(x, y, *added, strict=True)
        ]
        return NativeSequence((*calls, *cleared_ends(self, y, kernel.y.halo)))
