"""Slices at indices that the network computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.moves import ITEMSIZES
from mnnpy.runtime.contracts import Buffers, Config, Device, Run, Task, Work
from mnnpy.runtime.graph.types import INT32, INT64, Array
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.shape_math import normalize_axis


class GatherSlices(NativeKernel):
    """A copy of consecutive bytes for every index."""

    __slots__ = ()
    scheme = "gather_slices"
    operators = (Gather,)

    def reject(self, task: Task, device: Device) -> str | None:
        if not isinstance(task.op, Gather):
            return "no gather alone"
        x, indices = task.tensor(0), task.tensor(1)
        if x.dtype.hasobject or x.dtype.itemsize not in ITEMSIZES:
            return f"elements of {x} are not of {ITEMSIZES} bytes"
        if indices.dtype not in (INT32, INT64):
            return f"indices are {indices.dtype}"
        return None if x.size and task.output().size else "nothing to gather"

    def work(self, task: Task, config: Config) -> Work:
        """A copy takes its time, however short."""
        slices = _Slices.of(task)
        return Work(slices.units, 2 * task.output().nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        x, indices = buffers.inputs
        assert x is not None and indices is not None
        slices, outside = _Slices.of(task), np.zeros(1, dtype=np.int64)
        arrays = [x, indices, buffers.outputs[0], outside]
        call = self.call(slices.ir(self.lanes), arrays, slices.units)

        def check() -> None:
            if outside[0]:
                outside[0] = 0
                raise IndexError(f"an index is outside of [-{slices.size}, {slices.size})")

        return replace(call, check=check)


@dataclass(frozen=True, slots=True)
class _Slices:
    """Everything that the code depends on: (outer, size, bytes) -> (outer, count, bytes).

    A unit is one slice. An index that is out of range is noted, and read as 0.
    """

    outer: int
    size: int
    count: int
    nbytes: int
    index_bits: int

    @staticmethod
    def of(task: Task) -> _Slices:
        assert isinstance(task.op, Gather)
        x, indices = task.tensor(0), task.tensor(1)
        axis = normalize_axis(task.op.axis, x.rank)
        outer, (size, *inner) = x.shape[:axis], map(int, x.shape[axis:])
        return _Slices(
            prod(map(int, outer)),
            size,
            indices.size,
            prod(inner) * x.dtype.itemsize,
            8 * indices.dtype.itemsize,
        )

    @property
    def units(self) -> int:
        return self.outer * self.count

    def ir(self, lanes: int) -> str:
        module = Module(lanes)
        module.declare("void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, indices, y, outside = (f.argument("%args", index) for index in range(4))

        def unit(number: Value) -> None:
            image, which = f.divide(number, self.count)
            index = self._index(f, indices, which)
            wrapped = f.select(f.compare("slt", index, 0), "i64", f.add(index, self.size), index)
            wrong = f.compare("uge", wrapped, self.size)
            f.when(wrong, lambda: f.do(f"store i64 1, ptr {outside}, align 8"))
            place = f.select(wrong, "i64", 0, wrapped)
            source = self._byte(f, x, f.add(f.mul(image, self.size), place))
            target = self._byte(f, y, number)
            listed = f"ptr {target}, ptr {source}, i64 {self.nbytes}, i1 false"
            f.do(f"call void @llvm.memcpy.p0.p0.i64({listed})")

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _index(self, f: Function, indices: Value, which: Value) -> Value:
        kind = f"i{self.index_bits}"
        place = f.emit(f"getelementptr inbounds {kind}, ptr {indices}, i64 {which}")
        loaded = f.emit(f"load {kind}, ptr {place}, align {self.index_bits // 8}")
        return loaded if kind == "i64" else f.emit(f"sext {kind} {loaded} to i64")

    def _byte(self, f: Function, base: Value, slices: Value) -> Value:
        return f.emit(f"getelementptr inbounds i8, ptr {base}, i64 {f.mul(slices, self.nbytes)}")
