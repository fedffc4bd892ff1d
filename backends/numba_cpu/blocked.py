"""Tensors in channel-blocked layout: where an element lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.backends.numba_cpu.pictures import picture_shape
from mnnpy.runtime.graph.types import Array, TensorType
from mnnpy.runtime.layouts import Layout


@dataclass(frozen=True, slots=True)
class Blocked:
    """An (n, c, h, w) tensor as (n, blocks, h + 2 above, w + 2 halo, lanes); pitches in floats.

    Parameters
    ----------
    margin : pixels behind every row, which belong to whoever made the tensor.
    line : whether the tensor is (n, c, w), which has no halo above and below.
    slices : where the pictures are the slices of one volume, (c, n, h, w): how many there are with
        the halo in front and behind.
    """

    n: int
    c: int
    h: int
    w: int
    lanes: int
    halo: int
    margin: int = 0
    line: bool = False
    slices: int = 0

    @staticmethod
    def of_volume(tensor: TensorType, array: Array) -> Blocked:
        """One sample of (n, c, d, h, w), which the array holds."""
        _, c, depth, h, w = (int(size) for size in tensor.shape)
        halo = (array.shape[-2] - w) // 2
        return Blocked(depth, c, h, w, array.shape[-1], halo, slices=array.shape[1])

    @staticmethod
    def of(tensor: TensorType, array: Array) -> Blocked:
        """Read the halo off the array that holds the tensor."""
        n, c, h, w = picture_shape(tensor.shape)
        halo = (array.shape[-2] - w) // 2
        return Blocked(n, c, h, w, array.shape[-1], halo, line=tensor.rank == 3)

    def as_one_row(self) -> Blocked:
        """The same memory as images of a single long row; without a halo rows touch each other."""
        return Blocked(self.n, self.c, 1, self.h * self.w, self.lanes, 0)

    @property
    def blocks(self) -> int:
        return -(-self.c // self.lanes)

    @property
    def last_channels(self) -> int:
        """Channels of the last block."""
        return self.c - (self.blocks - 1) * self.lanes

    @property
    def above(self) -> int:
        """Rows of halo above the first row, and below the last."""
        return 0 if self.line else self.halo

    @property
    def row(self) -> int:
        return (self.w + 2 * self.halo + self.margin) * self.lanes

    @property
    def slice(self) -> int:
        """Of one block in one picture."""
        return (self.h + 2 * self.above) * self.row

    @property
    def plane(self) -> int:
        """From one block to the next."""
        return self.slice * (self.slices or 1)

    @property
    def image(self) -> int:
        """From one picture to the next."""
        return self.slice if self.slices else self.blocks * self.plane

    @property
    def origin(self) -> int:
        """Offset of the first pixel within a plane."""
        front = self.halo * self.slice if self.slices else 0
        return front + self.above * self.row + self.halo * self.lanes


def blocked(lanes: int, halo: int = 0) -> Layout:
    """The layout; as an input's, ``halo`` is the least that the kernel needs."""
    return Layout("blocked", lanes, halo)


def row_start(
    f: Function, base: Value, t: Blocked, image: Value, block: Value, row: Value
) -> Value:
    """Address of the first pixel of a row."""
    plane = f.at(f.at(base, f.mul(image, t.image)), f.mul(block, t.plane))
    return f.at(f.at(plane, f.mul(row, t.row)), t.origin)


def clear_halo(f: Function, y: Blocked, start: Value, row: Value, vectors: int = 1) -> None:
    """Write zeros around a finished row, and above the first and below the last one.

    ``start`` is the row's first pixel in the first of ``vectors`` planes.
    """
    if not y.halo:
        return
    zero = f.constant(0.0)
    border = y.above * y.row // y.lanes
    for v in range(vectors):
        first = f.at(start, v * y.plane)
        for column in range(y.halo):
            f.store_vector(zero, f.at(first, (column - y.halo) * y.lanes))
            f.store_vector(zero, f.at(first, (y.w + column) * y.lanes))
        for edge, offset in ((0, -y.above * y.row), (y.h - 1, y.row)) if y.above else ():
            begin = f.at(first, offset - y.halo * y.lanes)

            def fill(begin: Value = begin) -> None:
                f.loop(border, lambda i: f.store_vector(zero, f.at(begin, f.mul(i, y.lanes))))

            f.when(f.compare("eq", row, edge), fill)


def along_row(f: Function, width: int, pixels: int, tile: Callable[[int, Value], None]) -> None:
    """Call ``tile`` with a number of pixels and the first of them, until a row is done."""
    full, tail = divmod(width, pixels)
    if full:
        f.loop(full, lambda index: tile(pixels, f.mul(index, pixels)))
    if tail:
        tile(tail, str(full * pixels))
