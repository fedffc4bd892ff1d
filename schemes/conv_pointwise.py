"""1x1 convolution as one matrix product on the tensor as it lies: nothing is rearranged."""

from __future__ import annotations

from functools import partial

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.graph.types import ArrayModule
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import ConvGeometry, blocks, in_order


class ConvPointwise(Scheme):
    """y[n] = W x[n] with W : (k, c) and x[n] : (c, pixels)."""

    name = "conv_pointwise"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        if g.taps != 1:
            return f"kernel {g.kernel} is not 1x1"
        if max(g.strides) > 1 or g.needs_padding:
            return "strides and padding need the pixels gathered first"
        return "grouped" if g.group > 1 else None

    def bind(
        self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers
    ) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        columns = x.reshape(g.n, g.c, g.pixels)
        rows = w.reshape(g.k, g.c)
        y = buffers.outputs[0].reshape(g.n, g.k, g.pixels)
        runs: list[Run | None] = []
        for image in range(g.n):
            for part in blocks(g.k, g.pixels * g.dtype.itemsize, buffers.grain_nbytes):
                runs.append(partial(xp.matmul, rows[part], columns[image], out=y[image, part]))
                runs.append(buffers.finish((image, part)))
        return in_order(runs)
