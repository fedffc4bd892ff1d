"""Products of two matrices that the network computes, batched and broadcast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.convolutions import epilogue_of
from mnnpy.backends.numba_cpu.epilogues import read_epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.panels import Panels, panel_widths
from mnnpy.backends.numba_cpu.strided import Strided
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.preinference.regions import split_anchored

_PANEL_FLOATS = 1 << 17
"""A panel lies on the stack of the thread that multiplies with it."""


class MatMulPanels(NativeKernel):
    """(..., m, k) times (..., k, n); panels of columns that are read often are copied together."""

    __slots__ = ()
    scheme = "matmul_panels"
    operators = (MatMul,)

    def reject(self, task: Task, device: Device) -> str | None:
        anchored = split_anchored(task)
        if not isinstance(anchored.task.op, MatMul):
            return "no matrix product"
        if task.output().dtype != FLOAT32 or not task.output().size or task.output().rank < 2:
            return f"{task.output()} is not a matrix of float32"
        a, b = anchored.task.tensor(0), anchored.task.tensor(1)
        if min(a.rank, b.rank) < 2 or not a.size:
            return "a factor is a vector or empty"
        if int(b.shape[-2]) * self.lanes > _PANEL_FLOATS:
            return f"a panel of {b.shape[-2]} terms is too large for a stack"
        if anchored.bias is not None:
            return "adds a row"
        epilogue = read_epilogue(task, anchored)
        return epilogue if isinstance(epilogue, str) else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        *_, rows, columns = (int(dim) for dim in task.output().shape)
        terms = int(split_anchored(task).task.tensor(0).shape[-1])
        fit, blocks = _PANEL_FLOATS // (terms * self.lanes), -(-columns // self.lanes)
        vectors = panel_widths(rows, min(fit, blocks))
        height, width = choose_tile(device, self.lanes, rows, blocks, vectors)
        return ((("rows", height), ("vectors", width)),)

    def work(self, task: Task, config: Config) -> Work:
        # Every panel is written once and read back.
        return Work(task.macs, task.nbytes + 2 * split_anchored(task).task.tensor(1).nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored, options = split_anchored(task), dict(config)
        epilogue = epilogue_of(task, anchored)
        a, b = (buffers.inputs[p] for p in anchored.positions[:2] if p is not None)
        added = [r for p in epilogue.added if (r := buffers.inputs[p]) is not None]
        assert a is not None and b is not None
        *batch, m, n = buffers.outputs[0].shape
        product = _Product(
            Panels(
                self.lanes,
                m,
                a.shape[-1],
                n,
                len(added),
                epilogue,
                int(options["rows"]),
                int(options["vectors"]),
                packed=m > int(options["rows"]),
                in_row=False,
            ),
            *(Strided.of(x.shape).broadcast((*batch, *x.shape[-2:])) for x in (a, b)),
        )
        return self.call(product.ir(), [a, b, buffers.outputs[0], *added], product.units)


@dataclass(frozen=True, slots=True)
class _Product:
    """Everything that the code depends on; one unit is a panel of one product of the batch."""

    panels: Panels
    a: Strided
    b: Strided

    @property
    def units(self) -> int:
        return math.prod(self.a.shape[:-2]) * self.panels.count

    def ir(self) -> str:
        p, module = self.panels, Module(self.panels.lanes)
        p.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        a, b, y, *added = (f.argument("%args", index) for index in range(3 + p.added))
        packed = f.scratch(p.k * p.width) if p.packed else ""
        zeros = f.scratch(p.width)
        f.loop(p.vectors, lambda v: f.store_vector(f.constant(0.0), f.at(zeros, f.mul(v, p.lanes))))

        def unit(index: Value) -> None:
            image, panel = f.divide(index, p.count)
            column = f.mul(panel, p.width)
            weights = f.at(self.b.matrix(f, b, image), column)
            if p.packed:
                self._pack(f, weights, panel, packed)
                weights = packed
            place = f.add(f.mul(image, p.m * p.n), column)
            pointers = [self.a.matrix(f, a, image), weights, zeros]
            pointers += [f.at(pointer, place) for pointer in (y, *added)]
            f.loop(str(p.tiles), lambda tile: p.call(f, panel, tile, pointers))

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _pack(self, f: Function, source: Value, panel: Value, packed: Value) -> None:
        p = self.panels

        def copy(width: int) -> None:
            def row(k: Value) -> None:
                read, write = f.at(source, f.mul(k, p.n)), f.at(packed, f.mul(k, p.width))
                for v in range(-(-width // p.lanes)):
                    count = min(p.lanes, width - v * p.lanes)
                    loaded = f.load_lanes(f.at(read, v * p.lanes), count)
                    f.store_vector(loaded, f.at(write, v * p.lanes), 4 * p.lanes)

            f.loop(str(p.k), row)

        last = p.count - 1
        if p.last_width == p.width:
            copy(p.width)
            return
        f.when(f.compare("eq", panel, last), lambda: copy(p.last_width))
        f.when(f.compare("ne", panel, last), lambda: copy(p.width))
