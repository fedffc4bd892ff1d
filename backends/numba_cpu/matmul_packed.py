"""Products with a constant matrix, packed in panels of a few vectors of its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    pack_bias,
    pack_panels,
)
from mnnpy.backends.numba_cpu.epilogues import read_epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.panels import Panels, panel_widths
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device
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
        columns = task.output().shape[-1]
        return known is not None and known.shape[-1:] == (columns,) and known.size == columns

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        rows, _, columns = product_sizes(task)
        blocks = -(-columns // self.lanes)
        vectors = panel_widths(rows, blocks)
        height, width = choose_tile(device, self.lanes, rows, blocks, vectors)
        return ((("rows", height), ("vectors", width)),)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        anchored = split_anchored(task)
        return tuple(p for p in (anchored.positions[1], anchored.bias) if p is not None)

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """The matrix as the kernel wants it, and the bias in vectors, filled up with zeros."""
        anchored = split_anchored(task)
        b = anchored.task.known(1)
        assert b is not None
        matrix = b.T if isinstance(anchored.task.op, Gemm) and anchored.task.op.transB else b
        width = int(dict(config)["vectors"]) * self.lanes
        bias = None if anchored.bias is None else task.known(anchored.bias)
        row = None if bias is None else bias.reshape(-1)
        columns = -(-matrix.shape[1] // width) * width
        return self.pack_matrix(matrix, width, config), pack_bias(row, columns, self.lanes)

    def pack_matrix(self, matrix: Array, width: int, config: Config) -> Array:
        """(k, n) as (panels, k, width), filled up with zeros."""
        return pack_panels(matrix, width)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        panels = Panels(
            self.lanes,
            *product_sizes(task),
            len(added),
            epilogue,
            int(options["rows"]),
            int(options["vectors"]),
        )
        arrays = [x, *buffers.packed, y, *added]
        return self.call(product_code(panels), arrays, panels.count * panels.tiles)


def product_sizes(task: Task) -> tuple[int, int, int]:
    """Rows, terms and columns, leading axes flattened into rows."""
    *rows, columns = (int(dim) for dim in task.output().shape)
    terms = int(split_anchored(task).task.tensor(0).shape[-1])
    return math.prod(rows), terms, columns


def product_code(panels: Panels) -> str:
    """One unit is a tile of rows of one panel."""
    module = Module(panels.lanes)
    panels.add_tiles(module)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    x, w, b, y, *added = (f.argument("%args", index) for index in range(4 + panels.added))

    def unit(index: Value) -> None:
        panel, tile = f.divide(index, panels.tiles)
        column = f.mul(panel, panels.width)
        pointers = [x, f.at(w, f.mul(column, panels.k)), f.at(b, column)]
        pointers += [f.at(pointer, column) for pointer in (y, *added)]
        panels.call(f, panel, tile, pointers)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
