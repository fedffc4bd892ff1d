"""Writing LLVM IR: a thin layer of names, loops and vectors over text.

Values are names (``%7``) or literals as strings; their types are known from where they are used:
``i64`` for indices, ``ptr`` for addresses, ``float`` scalars and ``<lanes x float>`` vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Value = str
Body = Callable[..., Sequence[Value] | None]


@dataclass(slots=True)
class Module:
    """Functions of one kernel and the intrinsics that they use."""

    lanes: int
    functions: list[str] = field(default_factory=list)
    declarations: dict[str, None] = field(default_factory=dict)

    def declare(self, text: str) -> None:
        self.declarations.setdefault(f"declare {text}")

    def __str__(self) -> str:
        return "\n".join((*self.declarations, *self.functions))


class Function:
    """One function under construction.

    Parameters
    ----------
    parameters : (type, name) pairs; names without ``%``.
    alias : buffers may be the same memory.
    inner : an internal function that is called, never inlined.
    lanes : of its vectors, where not those of the module.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        parameters: Sequence[tuple[str, str]],
        inner: bool = False,
        alias: bool = False,
        lanes: int | None = None,
    ) -> None:
        self.module = module
        self.lanes = lanes or module.lanes
        self.vector = f"<{self.lanes} x float>"
        listed = ", ".join(
            f"{kind} noalias %{name}" if kind == "ptr" and not alias else f"{kind} %{name}"
            for kind, name in parameters
        )
        linkage = "internal " if inner else ""
        attributes = "noinline nounwind" if inner else "nounwind"
        self._lines = [f"define {linkage}void @{name}({listed}) {attributes} {{", "entry:"]
        self._block = "entry"
        self._count = 0

    def finish(self) -> None:
        """Close the function and put it into its module."""
        self._lines += ["  ret void", "}"]
        self.module.functions.append("\n".join(self._lines))

    def emit(self, text: str) -> Value:
        """An instruction with a result."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(f"  {text}")

    def scratch(self, floats: int) -> Value:
        """Memory on the stack, from a cache line on; to be asked for before any loop."""
        return self.emit(f"alloca float, i64 {floats}, align 64")

    # Integers and addresses

    def add(self, a: Value | int, b: Value | int) -> Value:
        if _is_zero(a):
            return str(b)
        return str(a) if _is_zero(b) else self.emit(f"add nsw i64 {a}, {b}")

    def sub(self, a: Value | int, b: Value | int) -> Value:
        return self.emit(f"sub nsw i64 {a}, {b}")

    def mul(self, a: Value | int, b: Value | int) -> Value:
        if str(b) == "1":
            return str(a)
        return "0" if _is_zero(a) or _is_zero(b) else self.emit(f"mul nsw i64 {a}, {b}")

    def divide(self, a: Value | int, b: int) -> tuple[Value, Value]:
        """Quotient and remainder of a non-negative number by a constant."""
        if b == 1:
            return str(a), "0"
        return self.emit(f"udiv i64 {a}, {b}"), self.emit(f"urem i64 {a}, {b}")

    def minimum(self, a: Value | int, b: Value | int) -> Value:
        return self.select(self.compare("slt", a, b), "i64", a, b)

    def maximum(self, a: Value | int, b: Value | int) -> Value:
        return self.select(self.compare("sgt", a, b), "i64", a, b)

    def compare(self, how: str, a: Value | int, b: Value | int) -> Value:
        return self.emit(f"icmp {how} i64 {a}, {b}")

    def select(self, condition: Value, kind: str, a: Value | int, b: Value | int) -> Value:
        return self.emit(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    def at(self, pointer: Value, floats: Value | int) -> Value:
        """Address of an element."""
        if _is_zero(floats):
            return pointer
        return self.emit(f"getelementptr inbounds float, ptr {pointer}, i64 {floats}")

    def argument(self, table: Value, index: int) -> Value:
        """A pointer out of a table of pointers."""
        place = self.emit(f"getelementptr inbounds ptr, ptr {table}, i64 {index}")
        return self.emit(f"load ptr, ptr {place}, align 8")

    def load_index(self, pointer: Value) -> Value:
        """A 64-bit number from memory."""
        return self.emit(f"load i64, ptr {pointer}, align 8")

    # Floats

    def load(self, pointer: Value) -> Value:
        return self.emit(f"load float, ptr {pointer}, align 4")

    def store(self, value: Value, pointer: Value) -> None:
        self.do(f"store float {value}, ptr {pointer}, align 4")

    def load_vector(self, pointer: Value, align: int = 4) -> Value:
        return self.emit(f"load {self.vector}, ptr {pointer}, align {align}")

    def store_vector(self, value: Value, pointer: Value, align: int = 4) -> None:
        self.do(f"store {self.vector} {value}, ptr {pointer}, align {align}")

    def store_lanes(self, value: Value, pointer: Value, count: int) -> None:
        """Store the first ``count`` lanes."""
        if count == self.lanes:
            self.store_vector(value, pointer)
            return
        if count == 1:
            self.store(self.emit(f"extractelement {self.vector} {value}, i64 0"), pointer)
            return
        mask = ", ".join(f"i32 {lane}" for lane in range(count))
        part = self.emit(
            f"shufflevector {self.vector} {value}, {self.vector} poison, <{count} x i32> <{mask}>"
        )
        self.do(f"store <{count} x float> {part}, ptr {pointer}, align 4")

    def load_lanes(self, pointer: Value, count: int) -> Value:
        """Load the first ``count`` lanes; the others are undefined."""
        if count == self.lanes:
            return self.load_vector(pointer)
        if count == 1:  # LLVM 22 fails on some shuffles of vectors of one.
            return self.emit(
                f"insertelement {self.vector} poison, float {self.load(pointer)}, i64 0"
            )
        part = self.emit(f"load <{count} x float>, ptr {pointer}, align 4")
        lanes = [f"i32 {lane}" if lane < count else "i32 poison" for lane in range(self.lanes)]
        kind = f"<{count} x float>"
        mask = f"<{self.lanes} x i32> <{', '.join(lanes)}>"
        return self.emit(f"shufflevector {kind} {part}, {kind} poison, {mask}")

    def prefetch(self, pointer: Value) -> None:
        """Bring a cache line near, whether or not the address is one of ours."""
        self.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 2, i32 1)")

    def splat(self, scalar: Value) -> Value:
        """A vector of one scalar in every lane."""
        single = self.emit(f"insertelement {self.vector} poison, float {scalar}, i64 0")
        mask = f"<{self.lanes} x i32> zeroinitializer"
        return self.emit(f"shufflevector {self.vector} {single}, {self.vector} poison, {mask}")

    def permute(self, vector: Value, lanes: Sequence[int]) -> Value:
        """The given lanes of a vector, in their order."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        v = self.vector
        return self.emit(f"shufflevector {v} {vector}, {v} poison, <{len(lanes)} x i32> <{mask}>")

    def broadcast(self, pointer: Value) -> Value:
        return self.splat(self.load(pointer))

    def constant(self, number: float) -> Value:
        """A vector of one number in every lane."""
        return "<" + ", ".join([f"float {literal(number)}"] * self.lanes) + ">"

    def intrinsic(self, name: str, *values: Value) -> Value:
        """One of LLVM's functions of vectors of floats (``fma``, ``sqrt``, ``maximum``)."""
        symbol, v = f"@llvm.{name}.v{self.lanes}f32", self.vector
        self.module.declare(f"{v} {symbol}({', '.join([v] * len(values))})")
        listed = ", ".join(f"{v} {value}" for value in values)
        return self.emit(f"call {v} {symbol}({listed})")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c`` rounded once; slow where the processor has no instruction for it."""
        return self.intrinsic("fma", a, b, c)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once where the processor has an instruction for it, else twice."""
        return self.intrinsic("fmuladd", a, b, c)

    def arithmetic(self, operation: str, a: Value, b: Value) -> Value:
        """``fadd``, ``fsub``, ``fmul`` or ``fdiv`` of vectors."""
        return self.emit(f"{operation} {self.vector} {a}, {b}")

    def larger(self, a: Value, b: Value) -> Value:
        """Lane-wise maximum; a NaN of ``a`` survives, ``b`` has none: one instruction of x86."""
        return self.choose(self.comparison("ogt", b, a), b, a)

    def smaller(self, a: Value, b: Value) -> Value:
        """Lane-wise minimum; a NaN of ``a`` survives, ``b`` has none: one instruction of x86."""
        return self.choose(self.comparison("olt", b, a), b, a)

    def largest(self, a: Value, b: Value) -> Value:
        """Lane-wise maximum; a NaN of either survives."""
        return self.choose(self.comparison("uno", b, b), b, self.larger(a, b))

    def comparison(self, how: str, a: Value, b: Value) -> Value:
        """A mask, one bit per lane; ``how`` is LLVM's (``oge``: ordered, ``uge``: or a NaN)."""
        return self.emit(f"fcmp {how} {self.vector} {a}, {b}")

    def choose(self, mask: Value, a: Value, b: Value) -> Value:
        """Lane-wise ``a`` where the mask holds, else ``b``."""
        v = self.vector
        return self.emit(f"select <{self.lanes} x i1> {mask}, {v} {a}, {v} {b}")

    # Control flow

    def loop(
        self,
        count: Value | int,
        body: Body,
        carried: Sequence[tuple[str, Value]] = (),
        start: Value | int = 0,
    ) -> list[Value]:
        """``for i in range(start, count): carried = body(i, *carried)``; returns what is carried.

        ``carried`` are (type, initial value) pairs. A loop whose bounds are numbers runs at least
        once; one with a value as a bound may run not at all.
        """
        if isinstance(count, int) and isinstance(start, int) and count - start == 1:
            return list(body(str(start), *(value for _, value in carried)) or ())
        number = self._count = self._count + 1
        before, head, after = self._block, f"loop{number}", f"end{number}"
        guarded = not (isinstance(count, int) and isinstance(start, int))
        if guarded:
            any_turn = self.compare("slt", start, count)
            self.do(f"br i1 {any_turn}, label %{head}, label %{after}")
        else:
            self.do(f"br label %{head}")
        self._label(head)
        place = len(self._lines)
        index = f"%i{number}"
        names = [f"%c{number}_{k}" for k in range(len(carried))]
        results = list(body(index, *names) or ())
        latch = self._block
        following = self.emit(f"add nsw i64 {index}, 1")
        phis = [f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]"]
        for name, (kind, initial), result in zip(names, carried, results, strict=True):
            phis.append(f"  {name} = phi {kind} [ {initial}, %{before} ], [ {result}, %{latch} ]")
        self._lines[place:place] = phis
        more = self.compare("slt", following, count)
        self.do(f"br i1 {more}, label %{head}, label %{after}")
        self._label(after)
        if not guarded:
            return results
        return [
            self.emit(f"phi {kind} [ {initial}, %{before} ], [ {result}, %{latch} ]")
            for (kind, initial), result in zip(carried, results, strict=True)
        ]

    def when(self, condition: Value, body: Callable[[], object]) -> None:
        """Run ``body`` only where the condition holds."""
        number = self._count = self._count + 1
        self.do(f"br i1 {condition}, label %then{number}, label %after{number}")
        self._label(f"then{number}")
        body()
        self.do(f"br label %after{number}")
        self._label(f"after{number}")

    def call(self, name: str, *arguments: tuple[str, Value]) -> None:
        listed = ", ".join(f"{kind} {value}" for kind, value in arguments)
        self.do(f"call void @{name}({listed})")

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._block = name


def literal(number: float) -> str:
    """A float constant as LLVM writes it: the bits of the double that the float32 widens to."""
    import struct

    single = struct.unpack("f", struct.pack("f", number))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"


def _is_zero(value: Value | int) -> bool:
    return str(value) == "0"
