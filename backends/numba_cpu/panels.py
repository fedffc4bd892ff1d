"""A product of matrices tile by tile, its second factor in panels of a few vectors of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.products import (
    LINE,
    Finish,
    Terms,
    Weights,
    lines_ahead,
    product_tile,
)

_FEW_ROWS = 6


def panel_widths(rows: int, blocks: int) -> list[int]:
    """Vectors of a panel, the best first: few rows stream the matrix, best in wide panels."""
    return [v for v in ((4, 3, 2, 1) if rows <= _FEW_ROWS else (2, 3, 1, 4)) if v <= blocks]


@dataclass(frozen=True, slots=True)
class Panels:
    """Everything that the code of (m, k) times (k, n) depends on.

    A panel is ``vectors`` vectors of columns, packed one term after another and filled up with
    zeros, or where they lie in the matrix.

    Parameters
    ----------
    added : tensors like the output that the epilogue reads.
    rows : of the output, per tile.
    packed : whether panels are, or read where they lie.
    in_row : whether the next panel lies behind this one.
    """

    lanes: int
    m: int
    k: int
    n: int
    added: int
    epilogue: Epilogue
    rows: int
    vectors: int
    packed: bool = True
    in_row: bool = True

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.vectors * self.lanes

    @property
    def count(self) -> int:
        return -(-self.n // self.width)

    @property
    def tiles(self) -> int:
        """Tiles of rows of one panel."""
        return -(-self.m // self.rows)

    @property
    def last_rows(self) -> int:
        return self.m - (self.tiles - 1) * self.rows

    @property
    def last_width(self) -> int:
        return self.n - (self.count - 1) * self.width

    @property
    def fetched(self) -> int:
        """Lines of the next panel per block of terms, shared among this panel's tiles."""
        return lines_ahead(self.width * LINE, self.tiles) if self.in_row else 0

    def add_tiles(self, module: Module) -> None:
        """Add the functions that :meth:`call` calls."""
        names = [f"r{index}" for index in range(self.added)]
        last_vectors = -(-self.last_width // self.lanes)
        last_lanes = self.last_width - (last_vectors - 1) * self.lanes
        blocks = -(-self.k // LINE)
        terms = Terms(blocks, LINE, LINE, self.k - (blocks - 1) * LINE, ((0,), (0,)), self.k)
        pitch = self.width if self.packed else self.n
        for rows in sorted({self.rows, self.last_rows}):
            for last in (False, True):
                vectors = last_vectors if last else self.vectors
                product_tile(
                    module,
                    f"tile{rows}{'last' if last else ''}",
                    rows,
                    vectors,
                    terms,
                    (self.n, self.lanes),
                    True,
                    self._finish(last_lanes if last else self.lanes, vectors),
                    names,
                    last_lanes if last else None,
                    Weights(
                        pitch,
                        self.packed,  # A matrix may be a view that starts anywhere.
                        last_lanes if last and not self.packed else None,
                        self.fetched,
                    ),
                )

    def call(self, f: Function, panel: Value, tile: Value, pointers: Sequence[Value]) -> None:
        """One tile of one panel.

        ``pointers`` are the first row of x, the panel's weights, bias and columns of the output and
        of the added tensors.
        """
        x, w, b, *moving = pointers
        first = f.mul(tile, self.rows)
        place = f.mul(first, self.n)
        arguments = [f.at(x, f.mul(first, self.k)), w, b, *(f.at(p, place) for p in moving)]
        if self.fetched:
            turn = f.mul(tile, self.fetched * LINE * -(-self.k // LINE))
            arguments.append(f.at(w, f.add(turn, self.k * self.width)))
        listed = [("ptr", argument) for argument in arguments]

        def run(rows: int) -> None:
            last = self.count - 1
            f.when(f.compare("eq", panel, last), lambda: f.call(f"tile{rows}last", *listed))
            f.when(f.compare("ne", panel, last), lambda: f.call(f"tile{rows}", *listed))

        if self.last_rows == self.rows:
            run(self.rows)
            return
        f.when(f.compare("ne", tile, self.tiles - 1), lambda: run(self.rows))
        f.when(f.compare("eq", tile, self.tiles - 1), lambda: run(self.last_rows))

    def _finish(self, last_lanes: int, vectors: int) -> Finish:
        def finish(f: Function, total: Value, row: int, v: int) -> Value:
            count = last_lanes if v + 1 == vectors else f.lanes
            operands = tuple(
                f.load_lanes(f.at(f"%r{index}", row * self.n + v * f.lanes), count)
                for index in range(self.added)
            )
            return self.epilogue.apply(f, total, operands)

        return finish
