"""A convolution's numbers in one place, and the padded input that several schemes start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.contracts import Run, Task
from mnnpy.runtime.graph.types import Array, DType
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.shape_math import Window

_BLOCK_PIXELS = 384


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """n images, c input and k output channels in ``group`` groups, over spatial axes."""

    n: int
    c: int
    k: int
    group: int
    spatial: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    dtype: DType
    window: Window

    @staticmethod
    def of(task: Task) -> ConvGeometry:
        """Geometry of a Conv task with static shapes."""
        op, x, w = task.op, task.tensor(0), task.tensor(1)
        assert isinstance(op, Conv)
        window = op.window(x, w)
        n, c, *spatial = (int(dim) for dim in x.shape)
        return ConvGeometry(
            n,
            c,
            int(w.shape[0]),
            op.group,
            tuple(spatial),
            tuple(int(dim) for dim in window.output),
            window.kernel,
            window.strides,
            window.dilations,
            tuple(int(dim) for dim in window.begin),
            tuple(int(dim) for dim in window.end),
            x.dtype,
            window,
        )

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def pixels(self) -> int:
        """Output positions of one image."""
        return math.prod(self.output)

    @property
    def row_pixels(self) -> int:
        """Output positions of one step along the first spatial axis."""
        return math.prod(self.output[1:])

    @property
    def padded(self) -> tuple[int, ...]:
        """Spatial shape of the padded input, as far as windows reach."""
        return tuple(
            max(lo + size + hi, (out - 1) * s + e)
            for lo, size, hi, out, s, e in zip(
                self.begin,
                self.spatial,
                self.end,
                self.output,
                self.strides,
                self.window.extent,
                strict=True,
            )
        )

    @property
    def needs_padding(self) -> bool:
        return any((*self.begin, *self.end))

    @property
    def padded_nbytes(self) -> int:
        """Bytes of the padded copy of one image; 0 where the input can be read as it is."""
        if not self.needs_padding:
            return 0
        return self.c * math.prod(self.padded) * self.dtype.itemsize


def take(workspace: Array, offset: int, shape: Sequence[int], dtype: DType) -> tuple[Array, int]:
    """An array at ``offset`` of the workspace, and the offset behind it (64-byte aligned)."""
    nbytes = math.prod(shape) * dtype.itemsize
    array = workspace[offset : offset + nbytes].view(dtype).reshape(tuple(shape))
    return array, aligned(offset + nbytes)


def aligned(nbytes: int) -> int:
    """Round up to 64 bytes: a cache line, and the widest vector."""
    return -(-nbytes // 64) * 64


def padded_images(
    g: ConvGeometry, x: Array, workspace: Array
) -> tuple[Array, Callable[[int], Run | None]]:
    """Padded copy of one image at a time, and the work that fills it for image ``i``.

    Where no padding is needed the "copy" is the input itself, indexed by image, and there is no
    work. Returns (array (n or 1, c, *padded), work for image i).
    """
    if not g.needs_padding:
        return x, lambda image: None
    padded, _ = take(workspace, 0, (1, g.c, *g.padded), g.dtype)
    places = (slice(lo, lo + size) for lo, size in zip(g.begin, g.spatial, strict=True))
    inner = padded[(0, slice(None), *places)]

    def filling(image: int) -> Run:
        source = x[image]

        def fill() -> None:
            padded.fill(0)
            inner[...] = source

        return fill

    return padded, filling


def blocks(total: int, size: int) -> list[slice]:
    """Split ``total`` into runs of ``size``, the last one shorter where it does not divide."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def row_count(g: ConvGeometry, row_nbytes: int, grain_nbytes: int) -> int:
    """How many rows of the output make about ``grain_nbytes``, in blocks of about equal size.

    Blocks keep at least ``_BLOCK_PIXELS`` pixels, below which matrix products lose more than
    caching gains.
    """
    rows = max(grain_nbytes // max(row_nbytes, 1), -(-_BLOCK_PIXELS // max(g.row_pixels, 1)))
    count = max(1, round(g.output[0] / rows))
    return max(1, -(-g.output[0] // count))


def flat_rows(image: Array, rows: slice) -> Array:
    """Matrix (channels, pixels) of some rows of a (channels, *spatial) image, not copied."""
    channels, height = image.shape[:2]
    row = math.prod(image.shape[2:])
    return image.reshape(channels, height * row)[:, rows.start * row : rows.stop * row]


def in_order(runs: Sequence[Run | None]) -> Run:
    """One work of many; the absent ones are dropped."""
    present = [run for run in runs if run is not None]
    if len(present) == 1:
        return present[0]

    def run_all() -> None:
        for run in present:
            run()

    return run_all


def is_float(dtype: DType) -> bool:
    """Whether matrix products of this dtype go through BLAS-like code."""
    return dtype.kind == "f" and dtype in (np.float16, np.float32, np.float64)


def rounding(dtype: DType) -> float:
    """How much coarser than float32 a plain float rounds."""
    return float(np.finfo(dtype).eps / np.finfo(np.float32).eps)
