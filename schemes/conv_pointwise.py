"""1x1 convolution as one matrix product on the tensor as it lies: nothing is rearranged."""

from __future__ import annotations

from functools import partial

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.graph.types import ArrayModule
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import ConvGeometry, blocks, flat_rows, in_order, row_count


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

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        g = ConvGeometry.of(task)
        row_nbytes = (g.k + g.c) * g.row_pixels * g.dtype.itemsize
        return ((("rows", row_count(g, row_nbytes, grain_nbytes)),),)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        weights = w.reshape(g.k, g.c)
        y = buffers.outputs[0]
        runs: list[Run | None] = []
        for image in range(g.n):
            for rows in blocks(g.output[0], int(dict(config)["rows"])):
                columns = flat_rows(x[image], rows)
                runs.append(partial(xp.matmul, weights, columns, out=flat_rows(y[image], rows)))
                runs.append(buffers.finish((image, slice(None), rows)))
        return in_order(runs)
