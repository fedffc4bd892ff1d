"""Conversions of element types that the processor does as NumPy does them."""

from __future__ import annotations

from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import BOOL, DTYPES, DType
from mnnpy.runtime.ops.casting import Cast

_CHUNK = 4096
"""Elements of one unit."""

_FLOATS = {"float32": "float", "float64": "double"}
_INTEGERS = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_KINDS: dict[DType, str] = {DTYPES[name]: kind for name, kind in _FLOATS.items()} | {
    DTYPES[name]: f"i{8 * DTYPES[name].itemsize}" for name in _INTEGERS
}
"""LLVM's types of elements in memory."""


class CastElements(NativeKernel):
    """Integers to anything, floats to floats and truth values."""

    __slots__ = ()
    scheme = "cast_elements"
    operators = (Cast,)

    def reject(self, task: Task, device: Device) -> str | None:
        x, y = task.tensor(0).dtype, task.output().dtype
        if not isinstance(task.op, Cast):
            return "more than a cast"
        if x not in _KINDS or y not in _KINDS or not task.output().size:
            return f"{x} to {y} is left to the reference"
        if x.kind == "f" and y.kind in "iu":
            return "what integers cannot hold is left to the reference"
        return None

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, 1)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        (x,), y = buffers.inputs, buffers.outputs[0]
        assert x is not None
        cast = _Cast(self.lanes, x.dtype, y.dtype, y.size)
        return self.call(cast.ir(), [x, y], -(-y.size // _CHUNK))


@dataclass(frozen=True, slots=True)
class _Cast:
    """Everything that the code depends on; one unit is a chunk of elements."""

    lanes: int
    given: DType
    wanted: DType
    size: int

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        x, y = f.argument("%args", 0), f.argument("%args", 1)
        tail = self.size % self.lanes

        def chunk(unit: Value) -> None:
            start = f.mul(unit, _CHUNK)
            count = f.minimum(_CHUNK, f.sub(self.size, start))
            full, lanes = f.divide(count, self.lanes)[0], self.lanes
            f.loop(full, lambda i: self._move(f, x, y, f.add(start, f.mul(i, lanes)), lanes))
            if tail:
                last = f.compare("eq", unit, (self.size - 1) // _CHUNK)
                f.when(last, lambda: self._move(f, x, y, str(self.size - tail), tail))

        f.loop("%end", chunk, start="%begin")
        f.finish()
        return str(module)

    def _move(self, f: Function, x: Value, y: Value, place: Value, lanes: int) -> None:
        given, wanted = (f"<{lanes} x {_KINDS[dtype]}>" for dtype in (self.given, self.wanted))
        addresses = [
            f.emit(f"getelementptr inbounds {_KINDS[dtype]}, ptr {pointer}, i64 {place}")
            for dtype, pointer in ((self.given, x), (self.wanted, y))
        ]
        value = f.emit(f"load {given}, ptr {addresses[0]}, align {self.given.itemsize}")
        value = self._converted(f, value, given, wanted, lanes)
        f.do(f"store {wanted} {value}, ptr {addresses[1]}, align {self.wanted.itemsize}")

    def _converted(self, f: Function, value: Value, given: str, wanted: str, lanes: int) -> Value:
        if self.wanted == BOOL:
            how = "fcmp une" if self.given.kind == "f" else "icmp ne"
            mask = f.emit(f"{how} {given} {value}, zeroinitializer")
            return f.emit(f"zext <{lanes} x i1> {mask} to {wanted}")
        signed = self.given.kind == "i"
        wider = self.wanted.itemsize - self.given.itemsize
        if self.given.kind == "f":
            how = "fpext" if wider > 0 else "fptrunc"
        elif self.wanted.kind == "f":
            how = "sitofp" if signed else "uitofp"
        else:
            how = "trunc" if wider < 0 else "sext" if signed else "zext"
        if given == wanted:
            return value
        return f.emit(f"{how} {given} {value} to {wanted}")
