"""Slices at indices that the network computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.moves import ITEMSIZES
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import INT32, INT64
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.shape_math import normalize_axis

_ENOUGH_UNITS = 16
"""Outer indices from which on threads share them evenly enough."""


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
        return Work(slices.outer * slices.count, 2 * task.output().nbytes, 1)

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
        return self.outer * (1 if self.whole else self.count)

    @property
    def whole(self) -> bool:
        """Whether a unit is all slices of an outer index; else it is one slice."""
        return self.outer >= _ENOUGH_UNITS

    def ir(self, lanes: int) -> str:
        module = Module(lanes)
        module.declare("void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, indices, y, outside = (f.argument("%args", index) for index in range(4))

        def copy(image: Value, which: Value, seen: Value) -> list[Value]:
            place, wrong = self._place(f, indices, which)
            source = self._byte(f, x, f.add(f.mul(image, self.size), place))
            target = self._byte(f, y, f.add(f.mul(image, self.count), which))
            listed = f"ptr {target}, ptr {source}, i64 {self.nbytes}, i1 false"
            f.do(f"call void @llvm.memcpy.p0.p0.i64({listed})")
            return [f.emit(f"or i1 {seen}, {wrong}")]

        def unit(number: Value, seen: Value) -> list[Value]:
            if self.whole:
                some = [("i1", seen)]
                return f.loop(self.count, lambda which, seen: copy(number, which, seen), some)
            image, which = ("0", number) if self.outer == 1 else f.divide(number, self.count)
            return copy(image, which, seen)

        (seen,) = f.loop("%end", unit, [("i1", "false")], start="%begin")
        f.when(seen, lambda: f.do(f"store i64 1, ptr {outside}, align 8"))
        f.finish()
        return str(module)

    def _place(self, f: Function, indices: Value, which: Value) -> tuple[Value, Value]:
        """Where a slice lies, counted from the front, and whether there is none."""
        kind = f"i{self.index_bits}"
        pointer = f.emit(f"getelementptr inbounds {kind}, ptr {indices}, i64 {which}")
        index = f.emit(f"load {kind}, ptr {pointer}, align {self.index_bits // 8}")
        if kind != "i64":
            index = f.emit(f"sext {kind} {index} to i64")
        wrapped = f.select(f.compare("slt", index, 0), "i64", f.add(index, self.size), index)
        wrong = f.compare("uge", wrapped, self.size)
        return f.select(wrong, "i64", 0, wrapped), wrong

    def _byte(self, f: Function, base: Value, slices: Value) -> Value:
        return f.emit(f"getelementptr inbounds i8, ptr {base}, i64 {f.mul(slices, self.nbytes)}")
