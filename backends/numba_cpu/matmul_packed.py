"""Products with a constant matrix, packed in panels of a few vectors of its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.convolutions import aligned_copy, epilogue_of, pack_bias, row_choices
from mnnpy.backends.numba_cpu.epilogues import Epilogue, read_epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.products import Terms, product_tile
from mnnpy.runtime.contracts import PLAIN, Buffers, Config, Device, Layout, Run, Task
from mnnpy.runtime.graph.types import FLOAT32, Array
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.preinference.regions import split_anchored


class MatMulPacked(NativeKernel):
    """(..., m, k) times a constant (k, n), bias and epilogue inside the store.

    A single row streams the matrix at the speed of memory; many rows run at that of the
    multiply-adds.
    """

    __slots__ = ()
    scheme = "matmul_packed"
    operators = (MatMul, Gemm)

    def reject(self, task: Task, device: Device) -> str | None:
        anchored = split_anchored(task)
        op, inputs = anchored.task.op, anchored.task.inputs
        if not isinstance(op, MatMul | Gemm):
            return "no matrix product"
        if isinstance(op, Gemm) and (op.transA or op.alpha != 1 or len(inputs) > 2):
            return "transposed or scaled"
        if task.output().dtype != FLOAT32 or not task.output().size or task.output().rank < 2:
            return f"{task.output()} is not a matrix of float32"
        if anchored.task.known(1) is None or anchored.task.tensor(1).rank != 2:
            return "the second factor is not a constant matrix"
        if anchored.task.tensor(0).rank < 2:
            return "the first factor is a vector"
        if anchored.bias is not None and not self._is_row(task, anchored.bias):
            return "the addend is not a constant row"
        epilogue = read_epilogue(task, anchored)
        return epilogue if isinstance(epilogue, str) else None

    @staticmethod
    def _is_row(task: Task, position: int) -> bool:
        known = task.known(position)
        return known is not None and known.size == known.shape[-1] == task.output().shape[-1]

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        rows, _, columns = _sizes(task)
        blocks = -(-columns // self.lanes)
        vectors = min(4, blocks) if rows <= 6 else min(2, blocks)
        (height,) = row_choices(rows, 14 if vectors <= 2 else 6, 4)
        return ((("rows", height), ("vectors", vectors)),)

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        return (PLAIN,) * len(task.inputs), (PLAIN,)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        anchored = split_anchored(task)
        return tuple(p for p in (anchored.positions[1], anchored.bias) if p is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """The matrix as (panels, k, vectors * lanes), filled up with zeros; the bias in vectors."""
        anchored = split_anchored(task)
        b = anchored.task.known(1)
        assert b is not None
        matrix = b.T if isinstance(anchored.task.op, Gemm) and anchored.task.op.transB else b
        k, n = matrix.shape
        width = int(dict(config)["vectors"]) * self.lanes
        panels = -(-n // width)
        filled = np.zeros((k, panels * width), dtype=np.float32)
        filled[:, :n] = matrix
        bias = None if anchored.bias is None else task.known(anchored.bias)
        row = None if bias is None else bias.reshape(-1)
        packed = aligned_copy(filled.reshape(k, panels, width).transpose(1, 0, 2))
        return packed, pack_bias(row, panels * width, self.lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        product = _Product(
            self.lanes,
            *_sizes(task),
            len(added),
            epilogue,
            int(options["rows"]),
            int(options["vectors"]),
        )
        return self.call(product.ir(), [x, *buffers.packed, y, *added], product.units)


def _sizes(task: Task) -> tuple[int, int, int]:
    """Rows, terms and columns, leading axes flattened into rows."""
    *rows, columns = (int(dim) for dim in task.output().shape)
    terms = int(split_anchored(task).task.tensor(0).shape[-1])
    return math.prod(rows), terms, columns


@dataclass(frozen=True, slots=True)
class _Product:
    """Everything that the code depends on; one unit is a tile of rows of one panel."""

    lanes: int
    m: int
    k: int
    n: int
    added: int
    epilogue: Epilogue
    rows: int
    vectors: int

    @property
    def panels(self) -> int:
        return -(-self.n // (self.vectors * self.lanes))

    @property
    def tiles(self) -> int:
        return -(-self.m // self.rows)

    @property
    def units(self) -> int:
        return self.panels * self.tiles

    def ir(self) -> str:
        module = Module(self.lanes)
        names = [f"r{index}" for index in range(self.added)]
        last_height = self.m - (self.tiles - 1) * self.rows
        rest = self.n - (self.panels - 1) * self.vectors * self.lanes
        last_vectors = -(-rest // self.lanes)
        last_lanes = rest - (last_vectors - 1) * self.lanes
        shapes = {(rows, last) for rows in (self.rows, last_height) for last in (False, True)}
        for rows, last in sorted(shapes):
            terms = Terms(1, 0, self.k, self.k, ((0,), (0,)), self.k)
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
                self.vectors,
            )
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        pointers = [f.argument("%args", index) for index in range(4 + self.added)]
        f.loop("%end", lambda unit: self._tile(f, unit, pointers, last_height), start="%begin")
        f.finish()
        return str(module)

    def _finish(self, last_lanes: int, vectors: int):  # type: ignore[no-untyped-def]
        def finish(f: Function, total: Value, row: int, v: int) -> Value:
            count = last_lanes if v + 1 == vectors else f.lanes
            operands = tuple(
                f.load_lanes(f.at(f"%r{index}", row * self.n + v * f.lanes), count)
                for index in range(self.added)
            )
            return self.epilogue.apply(f, total, operands)

        return finish

    def _tile(self, f: Function, unit: Value, pointers: Sequence[Value], last_height: int) -> None:
        x, w, b, y, *added = pointers
        panel, tile = f.divide(unit, self.tiles)
        first, column = f.mul(tile, self.rows), f.mul(panel, self.vectors * self.lanes)
        place = f.add(f.mul(first, self.n), column)
        arguments = [
            f.at(x, f.mul(first, self.k)),
            f.at(w, f.mul(column, self.k)),
            f.at(b, column),
            f.at(y, place),
            *(f.at(pointer, place) for pointer in added),
        ]
        listed = [("ptr", argument) for argument in arguments]

        def call(rows: int) -> None:
            last = f.compare("eq", panel, self.panels - 1)
            f.when(last, lambda: f.call(f"tile{rows}last", *listed))
            f.when(f.compare("ne", panel, self.panels - 1), lambda: f.call(f"tile{rows}", *listed))

        if last_height == self.rows:
            call(self.rows)
            return
        f.when(f.compare("ne", tile, self.tiles - 1), lambda: call(self.rows))
        f.when(f.compare("eq", tile, self.tiles - 1), lambda: call(last_height))
