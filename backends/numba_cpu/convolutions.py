"""What the generated convolutions share: what fits them, packing, tile heights."""

from __future__ import annotations

import math

import numpy as np

from mnnpy.backends.host_memory import aligned_bytes, array_view
from mnnpy.backends.numba_cpu.epilogues import Epilogue, read_epilogue
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.preinference.regions import Anchored
from mnnpy.schemes.geometry import ConvGeometry


def unfit_convolution(task: Task, anchored: Anchored) -> str | None:
    """Why a convolution cannot be generated at all, whatever the algorithm."""
    if not isinstance(anchored.task.op, Conv):
        return "no convolution"
    if task.output().dtype != FLOAT32:
        return f"{task.output().dtype} is not float32"
    if task.output().rank != 4:
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


def pack_weights(w: Array, channels: int, outputs: int) -> Array:
    """(k, c, r, s) as (groups of ``outputs``, blocks of ``channels``, r, s, channel, output).

    The last block of channels is as short as it is; outputs are filled up with zeros.
    """
    k, c, *kernel = w.shape
    groups = -(-k // outputs)
    filled = np.zeros((groups * outputs, c, *kernel), dtype=np.float32)
    filled[:k] = w
    by_group = filled.reshape(groups, outputs, c, *kernel)
    parts = [
        by_group[:, :, start : start + channels].transpose(0, 3, 4, 2, 1).reshape(groups, -1)
        for start in range(0, c, channels)
    ]
    return aligned_copy(np.concatenate(parts, axis=1))


def pack_depthwise(w: Array, lanes: int) -> Array:
    """(c, 1, r, s) as (blocks, r, s, lanes), filled up with zeros."""
    c, _, *kernel = w.shape
    filled = np.zeros((-(-c // lanes) * lanes, *kernel), dtype=np.float32)
    filled[:c] = w[:, 0]
    return aligned_copy(filled.reshape(-1, lanes, *kernel).transpose(0, 2, 3, 1))


def pack_bias(bias: Array | None, k: int, lanes: int) -> Array:
    """The bias in whole vectors; zeros where there is none."""
    filled = np.zeros(-(-k // lanes) * lanes, dtype=np.float32)
    if bias is not None:
        filled[: len(bias)] = bias
    return aligned_copy(filled)


def aligned_copy(array: Array) -> Array:
    """The same content from a cache line on."""
    copy = array_view(aligned_bytes(array.nbytes), 0, array.shape, array.dtype)
    copy[...] = array
    return copy
