"""What the generated convolutions share: what fits them, packing, tile heights."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from mnnpy.backends.host_memory import aligned_bytes, array_view
from mnnpy.backends.numba_cpu.epilogues import Epilogue, read_epilogue
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.preinference.regions import Anchored
from mnnpy.schemes.geometry import ConvGeometry


def unfit_convolution(task: Task, anchored: Anchored, axes: Collection[int] = (1, 2)) -> str | None:
    """Why a convolution cannot be generated at all, whatever the algorithm, which is for such
    numbers of spatial axes.
    """
    if not isinstance(anchored.task.op, Conv | ConvTranspose):
        return "no convolution"
    if task.output().dtype != FLOAT32:
        return f"{task.output().dtype} is not float32"
    if task.output().rank - 2 not in axes:
        return f"{task.output().rank - 2} spatial axes"
    if task.output().size == 0 or anchored.task.tensor(0).size == 0:
        return "nothing to compute"
    if anchored.task.known(1) is None:
        return "the weights are computed by the network"
    if anchored.bias is not None and task.known(anchored.bias) is None:
        return "the bias is computed by the network"
    epilogue = read_epilogue(task, anchored)
    return epilogue if isinstance(epilogue, str) else None


def epilogue_of(task: Task, anchored: Anchored) -> Epilogue:
    """The epilogue of a task that is known to have one."""
    epilogue = read_epilogue(task, anchored)
    assert isinstance(epilogue, Epilogue)
    return epilogue


def halo_needed(g: ConvGeometry) -> int:
    """Border that the windows reach into."""
    reach = [
        (out - 1) * s + e - lo - size
        for out, s, e, lo, size in zip(
            g.output, g.strides, g.window.extent, g.begin, g.spatial, strict=True
        )
    ]
    return max(0, *g.begin, *reach)


def is_flat(g: ConvGeometry) -> bool:
    """Whether each output pixel reads the input pixel at its own place only."""
    return g.taps == 1 and max(g.strides) == 1 and not g.needs_padding


def row_choices(width: int, tallest: int, lowest: int) -> tuple[int, ...]:
    """Tile heights for rows of ``width`` pixels: the one of least remainder, tall before low."""
    if width <= tallest:
        return (width,)
    heights = range(tallest, lowest - 1, -1)
    return (min(heights, key=lambda rows: math.ceil(width / rows) * rows - width),)


def computed_channels(k: int, lanes: int) -> int:
    """Output channels that tiles one vector wide compute: half of the last vector where that holds
    them.
    """
    step = lanes // 2 if lanes >= 8 else lanes
    return -(-k // step) * step


def pack_weights(w: Array, channels: int, outputs: int) -> Array:
    """(k, c, *taps) as (groups of ``outputs``, blocks of ``channels``, *taps, channel, output).

    The last block of channels is as short as it is; outputs are filled up with zeros.
    """
    k, c, *kernel = w.shape
    taps, groups = math.prod(kernel), -(-k // outputs)
    packed = aligned_floats((groups, c * taps * outputs))
    packed[-1] = 0
    whole = c - c % channels
    for start, stop, depth in ((0, whole, channels), (whole, c, c - whole)):
        if start == stop:
            continue
        part = packed[:, start * taps * outputs : stop * taps * outputs]
        blocks = part.reshape(groups, -1, *kernel, depth, outputs)
        for group in range(groups):
            rows = w[group * outputs : (group + 1) * outputs, start:stop]
            by_block = rows.reshape(len(rows), -1, depth, *kernel)
            blocks[group, ..., : len(rows)] = np.moveaxis(by_block, (2, 0), (-2, -1))
    return packed


def pack_panels(matrix: Array, width: int) -> Array:
    """(k, n) as (panels, k, width), filled up with zeros."""
    k, n = matrix.shape
    packed = aligned_floats((-(-n // width), k, width))
    packed[-1] = 0
    for index, panel in enumerate(packed):
        columns = matrix[:, index * width : (index + 1) * width]
        panel[:, : columns.shape[1]] = columns
    return packed


def pack_depthwise(w: Array, lanes: int) -> Array:
    """(c, 1, r, s) as (blocks, r, s, lanes), filled up with zeros."""
    return pack_weights(w, 1, lanes).reshape(-1, *w.shape[2:], lanes)


def pack_bias(bias: Array | None, k: int, lanes: int) -> Array:
    """The bias in whole vectors; zeros where there is none."""
    packed = aligned_floats((-(-k // lanes) * lanes,))
    packed[:] = 0
    if bias is not None:
        packed[: len(bias)] = bias
    return packed


def aligned_floats(shape: tuple[int, ...]) -> Array:
    """Uninitialised float32 from a cache line on."""
    return array_view(aligned_bytes(math.prod(shape) * FLOAT32.itemsize), 0, shape, FLOAT32)
