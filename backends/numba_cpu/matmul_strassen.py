"""Products with a constant matrix by one level of Strassen's product."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mnnpy.backends.numba_cpu.convolutions import epilogue_of
from mnnpy.backends.numba_cpu.matmul_packed import MatMulPacked, product_sizes
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.backends.numba_cpu.strassen_code import ROUNDING, pack_factors, strassen_calls
from mnnpy.backends.numba_cpu.strassen_tile import PRODUCTS, SUMS, Grid, Strassen
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored

_FEWEST_ROWS = 14


class MatMulStrassen(MatMulPacked):
    """(..., m, k) times a constant (k, n); rows are paired within one matrix of a batch."""

    __slots__ = ()
    scheme = "matmul_strassen"

    def reject(self, task: Task, device: Device) -> str | None:
        reason = MatMulPacked.reject(self, task, device)
        if reason is not None:
            return reason
        if task.output().rank < 3:
            return "rows of one matrix may be samples of a batch, which must not mix"
        rows, terms, columns = self._matrix(task)
        if terms % (2 * self.lanes) or columns % (2 * self.lanes):
            return f"{terms} terms or {columns} columns are not two halves of whole vectors"
        return f"{rows} rows are too few" if rows < _FEWEST_ROWS else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        rows, _, columns = self._matrix(task)
        blocks = columns // 2 // self.lanes
        vectors = [v for v in (2, 1, 3, 4) if blocks % v == 0]
        height, width = choose_tile(device, self.lanes, rows // 2, blocks, vectors)
        alone = int(rows % (2 * height) > 0)
        return ((("alone", alone), ("rows", height), ("vectors", width)),)

    def work(self, task: Task, config: Config) -> Work:
        rows, _, _ = self._matrix(task)
        last = rows % (2 * int(dict(config)["rows"]))
        macs = task.macs * ((rows - last) * PRODUCTS // 8 + last) // rows
        sums = self.workspace_nbytes(task, config)
        return Work(macs, task.nbytes + 2 * sums, 1, sums)

    def max_error(self, task: Task, config: Config) -> float:
        return ROUNDING * math.sqrt(self._matrix(task)[1])

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        rows, terms, _ = product_sizes(task)
        return SUMS * 4 * (rows // 2) * (terms // 2)

    def pack_matrix(self, matrix: Array, width: int, config: Config) -> Array:
        """Sums of quarters of the matrix as (panels, factors, k / 2, width)."""
        return pack_factors(matrix, self.lanes, width, bool(dict(config)["alone"]))

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options, lanes = split_anchored(task), dict(config), self.lanes
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        rows, terms, columns = self._matrix(task)
        height, vectors = int(options["rows"]), int(options["vectors"])
        outputs = Grid(rows * columns, 0, height * columns, columns, lanes)
        product = Strassen(
            lanes,
            product_sizes(task)[0] // rows,
            rows // (2 * height),
            height,
            rows % (2 * height),
            terms // 2 // lanes,
            columns // 2 // (vectors * lanes),
            Grid(rows * terms, 0, height * terms, terms, lanes),
            outputs,
            (outputs,) * len(added),
            epilogue,
            height,
            vectors,
            False,
        )
        arrays = [x, buffers.workspace, *buffers.packed, y, *added]
        return NativeSequence(tuple(strassen_calls(self, product, arrays)))

    @staticmethod
    def _matrix(task: Task) -> tuple[int, int, int]:
        """Rows, terms and columns of one matrix of the batch."""
        _, terms, columns = product_sizes(task)
        return int(task.output().shape[-2]), terms, columns
