"""The tile of one level of Strassen's product: seven products of half the terms instead of eight.

Source: V. Strassen, *Gaussian elimination is not optimal*, 1969, in S. Winograd's form with
fifteen additions. Rows come in pairs, one of the upper and one of the lower half (a1, a2); terms
and columns come in pairs of neighbouring blocks, so that threads which share columns write what
they read next. Four sums of quarters of the input are made ahead of the products, those of the
weights are packed, and all others happen in registers. A last row without a partner is multiplied
by the quarters of the weights themselves. What is not a number, or infinite, in a row reaches its
partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mnnpy.backends.numba_cpu.blocked import Blocked
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.products import (
    LINE,
    Terms,
    Tile,
    Weights,
    add_products,
    lines_ahead,
)

PRODUCTS = 7
SUMS = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Where pixels in rows, with channels in blocks, lie; in floats.

    Parameters
    ----------
    picture : the blocked tensor whose halo is to be cleared around what is written, if any.
    """

    image: int
    origin: int
    row: int
    pixel: int
    block: int
    picture: Blocked | None = None

    @staticmethod
    def of(tensor: Blocked) -> Grid:
        """The rows of a blocked picture."""
        return Grid(tensor.image, tensor.origin, tensor.row, tensor.lanes, tensor.plane, tensor)

    def strided(self, strides: tuple[int, ...]) -> Grid:
        """Of rows and pixels only those at multiples of (rows, pixels)."""
        return replace(self, row=self.row * strides[0], pixel=self.pixel * strides[1], picture=None)


@dataclass(frozen=True, slots=True)
class Strassen:
    """Everything that the code depends on.

    Parameters
    ----------
    pairs, width : of rows of an image, and pixels of each row.
    last : pixels of a last row without a partner; 0 where there is none.
    depth : pairs of blocks of terms.
    groups : pairs of ``vectors`` blocks of columns.
    height : pixels per tile.
    near : whether a pair of rows passes all weights, which stay in a near cache; else a group's
        weights pass all rows, and the sums of all rows are made before (``s``).
    chunks : of the pairs of an image, each of which a group's weights pass for themselves.
    """

    lanes: int
    images: int
    pairs: int
    width: int
    last: int
    depth: int
    groups: int
    x: Grid
    y: Grid
    residuals: tuple[Grid, ...]
    epilogue: Epilogue
    height: int
    vectors: int
    near: bool
    chunks: int = 1

    @property
    def row_units(self) -> int:
        """Pairs of rows of an image, and its last row where that is alone."""
        return self.pairs + (self.last > 0)

    @property
    def units(self) -> int:
        return self.images * self.row_units * (1 if self.near else self.groups)

    @property
    def pair_sums(self) -> int:
        """Floats of the sums of one pair of rows."""
        return SUMS * self.depth * self.width * self.lanes

    @property
    def factor(self) -> int:
        """Floats of a group of one factor of the weights."""
        return self.depth * self.vectors * self.lanes**2

    @property
    def panel(self) -> int:
        """Floats of the weights of one group."""
        return factors(self.last > 0) * self.factor

    @property
    def fetched(self) -> int:
        """Lines of the next group's weights per block of terms, shared among this group's tiles."""
        turns = PRODUCTS * self.depth * self.pairs * self.tiles
        return 0 if self.near else lines_ahead(self.panel, turns)

    @property
    def tiles(self) -> int:
        """Tiles of a row."""
        return -(-self.width // self.height)

    def heights(self, width: int) -> list[int]:
        """Heights of the tiles of a row."""
        full, tail = divmod(width, self.height)
        return sorted({self.height if full else 0, tail} - {0})

    @property
    def pixels(self) -> tuple[int, ...]:
        """Steps from one pixel to the next of what a tile reads and writes: x, s, y, residuals."""
        return self.x.pixel, self.lanes, self.y.pixel, *(grid.pixel for grid in self.residuals)

    def quarter(self, grid: Grid, right: int, down: int) -> int:
        """Offset of the other row of a pair, and of the other group of blocks."""
        return right * self.vectors * grid.block + down * self.pairs * grid.row


def pair_tile(s: Strassen, module: Module, height: int) -> None:
    """Add a function ``pair(x, s, w, b, y, *residuals, coming)``: a tile of each quarter.

    P1 = a11 b11, P2 = a12 b21, P3 = S4 b22, P4 = a22 T4, P5 = S1 T1, P6 = S2 T2, P7 = S3 T3;
    c11 = P1 + P2, c21 = P1 + P6 + P7 - P4, c22 = P1 + P6 + P7 + P5, c12 = P1 + P6 + P5 + P3.
    """
    tile = _Tile(s, module, "pair", height)
    first = tile.held(tile.add(tile.zero, tile.given(0, 0)))
    tile.finish(tile.add(first.sums, tile.given(1, 0)), 0, 0)
    sixth = tile.held(tile.add(first.again(), tile.made(2)))
    seventh = tile.held(tile.add(sixth.sums, tile.made(3)))
    tile.finish(tile.add(seventh.sums, tile.given(1, 1)), 0, 1)
    fifth = tile.add(tile.zero, tile.made(1))
    tile.finish(seventh.plus(fifth), 1, 1)
    tile.finish(tile.add(sixth.plus(fifth), tile.made(4)), 1, 0)
    tile.f.finish()


def last_tile(s: Strassen, module: Module, height: int) -> None:
    """Add a function ``last`` like ``pair``: a1 b11 + a2 b21, and a2 b22 + a1 b12."""
    tile = _Tile(s, module, "last", height)
    left = tile.add(tile.zero, tile.given(0, 0))
    tile.finish(tile.add(left, tile.given(1, 0)), 0, 0)
    tile.skip(PRODUCTS - 3)
    right = tile.add(tile.zero, tile.given(1, 0))
    tile.finish(tile.add(right, tile.given(0, 0)), 1, 0)
    tile.f.finish()


Sums = Sequence[Value]


class _Tile:
    """A function under construction that passes a group's factors one after another."""

    def __init__(self, kernel: Strassen, module: Module, name: str, height: int) -> None:
        added = [f"r{index}" for index in range(len(kernel.residuals))]
        names = ["x", "s", "w", "b", "y", *added, "coming"]
        f = Function(module, f"{name}{height}", [("ptr", name) for name in names], inner=True)
        self.f = f
        self._kernel = kernel
        self._size = height * kernel.vectors
        weights = Weights(kernel.vectors * kernel.lanes, fetched=kernel.fetched)
        self._tile = Tile(height, kernel.vectors, weights)
        self._weights = "%w"
        self._turn = 0
        self.zero: Sums = [f.constant(0.0)] * self._size
        self._scratch = f.scratch(3 * self._size * kernel.lanes)
        self._slots = 0

    def given(self, right: int, down: int) -> tuple[Value, Terms]:
        """A quarter of the input."""
        k = self._kernel
        offset = right * k.x.block + down * k.pairs * k.x.row
        terms = Terms(k.depth, 2 * k.x.block, k.lanes, k.lanes, ((0,), (0,)), k.x.pixel)
        return self.f.at("%x", offset), terms

    def made(self, number: int) -> tuple[Value, Terms]:
        """A sum of quarters, S1 to S4."""
        k = self._kernel
        terms = Terms(k.depth, k.width * k.lanes, k.lanes, k.lanes, ((0,), (0,)), k.lanes)
        return self.f.at("%s", (number - 1) * k.pair_sums // SUMS), terms

    def add(self, sums: Sums, factor: tuple[Value, Terms]) -> Sums:
        """Add the product of a first factor with the next second one."""
        x, terms = factor
        ahead = self._turn * self._tile.weights.fetched * LINE * self._kernel.depth
        coming = self.f.at("%coming", ahead)
        self._turn += 1
        self._weights, after = add_products(
            self.f, x, self._weights, sums, self._tile, terms, coming
        )
        return after

    def skip(self, count: int) -> None:
        """Pass over second factors."""
        self._weights = self.f.at(self._weights, count * self._kernel.factor)

    def held(self, sums: Sums) -> _Held:
        """Sums that are needed again, kept in memory as well."""
        self._slots += 1
        place = self.f.at(self._scratch, (self._slots - 1) * self._size * self._kernel.lanes)
        return _Held(self.f, place, sums)

    def finish(self, sums: Sums, right: int, down: int) -> None:
        """Bias, epilogue and store of a tile of one quarter."""
        f, k = self.f, self._kernel
        grids = {"%y": k.y} | {f"%r{index}": grid for index, grid in enumerate(k.residuals)}
        for index, total in enumerate(sums):
            row, v = divmod(index, k.vectors)
            place, *added = (
                f.at(name, k.quarter(grid, right, down) + row * grid.pixel + v * grid.block)
                for name, grid in grids.items()
            )
            column = (right * k.vectors + v) * k.lanes
            total = f.arithmetic("fadd", total, f.load_vector(f.at("%b", column)))
            operands = tuple(f.load_vector(pointer) for pointer in added)
            f.store_vector(k.epilogue.apply(f, total, operands), place)


class _Held:
    """A tile of sums in registers and in memory."""

    def __init__(self, f: Function, place: Value, sums: Sums) -> None:
        self._f = f
        self.sums = sums
        self._places = [f.at(place, index * f.lanes) for index in range(len(sums))]
        for total, slot in zip(sums, self._places, strict=True):
            f.store_vector(total, slot, 4 * f.lanes)

    def again(self) -> Sums:
        """The sums, from memory."""
        return [self._f.load_vector(slot, 4 * self._f.lanes) for slot in self._places]

    def plus(self, sums: Sums) -> Sums:
        """These sums and others."""
        pairs = zip(sums, self.again(), strict=True)
        return [self._f.arithmetic("fadd", total, kept) for total, kept in pairs]


def factors(alone: bool) -> int:
    """Matrices that weights are packed as: the products', and one that a row alone needs."""
    return PRODUCTS + alone
