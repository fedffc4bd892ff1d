"""Elementwise operators and expressions of them, with broadcasting, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.blocked import Blocked, blocked, clear_halo
from mnnpy.backends.numba_cpu.convolutions import aligned_floats
from mnnpy.backends.numba_cpu.expressions import Expression, read_expression
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.pictures import is_picture, picture_shape
from mnnpy.backends.numba_cpu.pointwise import GENERATED
from mnnpy.backends.numba_cpu.rows import CHUNK, Rows, blocked_rows, plain_rows
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import BOOL, FLOAT32, Array
from mnnpy.runtime.layouts import PLAIN, Layout

_FLAT: Config = (("layout", "plain"),)


class ElementwiseVectors(NativeKernel):
    """float32, and bool where it chooses; operands of any shapes that broadcast to the output's."""

    __slots__ = ()
    scheme = "elementwise"
    operators = tuple(GENERATED)

    def carries(self, region: Graph) -> bool:
        return all(type(node.op) in GENERATED for node in region.nodes)

    def reject(self, task: Task, device: Device) -> str | None:
        y = task.output()
        if y.dtype != FLOAT32 or not y.size:
            return f"{y} is not float32 with something in it"
        expression = read_expression(task)
        return expression if isinstance(expression, str) else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        if not is_picture(task.output()):
            return (_FLAT,)
        lie = [self._lies_blocked(task, p) for p in _expression(task).tensors]
        # What is packed depends on the rank, so that the configuration says it.
        in_blocks: Config = (("layout", "blocked"), ("rank", task.output().rank))
        return (_FLAT,) if None in lie else (_FLAT, in_blocks)

    @staticmethod
    def _lies_blocked(task: Task, position: int) -> bool | None:
        """Whether an operand of a blocked output is blocked, or plain; None where neither works."""
        tensor, constant = task.tensor(position), task.known(position) is not None
        whole = constant or tensor.rank == task.output().rank
        channels = _operand_shape(tensor.shape, task.output().rank)[1]
        if channels == 1:
            # What is packed may not depend on the output, see ``Scheme.pack``.
            return not constant and whole and task.output().shape[1] == 1
        return True if whole and tensor.dtype == FLOAT32 else None

    def _blocked(self, task: Task, config: Config, constant: bool) -> list[int]:
        """The constant or the computed operands that lie blocked."""
        return [
            position
            for position in _expression(task).tensors
            if config != _FLAT
            and (task.known(position) is not None) == constant
            and self._lies_blocked(task, position)
        ]

    def layouts(self, task: Task, config: Config) -> tuple[tuple[Layout, ...], tuple[Layout, ...]]:
        inputs = [PLAIN] * len(task.inputs)
        for position in self._blocked(task, config, constant=False):
            inputs[position] = blocked(self.lanes)
        return tuple(inputs), (PLAIN if config == _FLAT else blocked(self.lanes),)

    def work(self, task: Task, config: Config) -> Work:
        return Work(int(task.output().size) * _expression(task).operations, task.nbytes, 1)

    def inplace(self, task: Task) -> tuple[int, ...]:
        y = task.output()
        return tuple(
            position
            for position in _expression(task).tensors
            if task.tensor(position) == y and task.known(position) is None
        )

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        return tuple(self._blocked(task, config, constant=True))

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Constants of several channels in blocks, lanes beyond the last channel being zero."""
        known = (task.known(position) for position in self.packed_inputs(task, config))
        rank = int(dict(config).get("rank", 0))
        return tuple(_in_blocks(array, self.lanes, rank) for array in known if array is not None)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        expression, y = _expression(task), buffers.outputs[0]
        target: Blocked | None = None
        packed = dict(zip(self.packed_inputs(task, config), buffers.packed, strict=True))
        arrays = [packed.get(p, buffers.inputs[p]) for p in expression.tensors]
        operands = [array for array in arrays if array is not None]
        if config != _FLAT:
            target = Blocked.of(task.output(), y)
            rank = task.output().rank
            shapes = [_operand_shape(task.tensor(p).shape, rank) for p in expression.tensors]
            placed = [_placed(*operand, rank) for operand in zip(shapes, operands, strict=True)]
            rows = blocked_rows(target, placed)
        else:
            rows = plain_rows(y.shape, [array.shape for array in operands], self.lanes)
        masks = tuple(array.dtype == BOOL for array in operands)
        kernel = _Elementwise(self.lanes, expression, rows, masks, target)
        return self.call(kernel.ir(), [y, *operands], rows.units)


def _expression(task: Task) -> Expression:
    """The expression of a task that is known to be one."""
    expression = read_expression(task)
    assert isinstance(expression, Expression)
    return expression


def _operand_shape(shape: Shape, rank: int) -> tuple[int, int, int, int]:
    """(n, c, h, w) of what is broadcast to a picture of that rank."""
    return picture_shape((1,) * (rank - len(shape)) + tuple(shape))


def _placed(shape: tuple[int, int, int, int], array: Array, rank: int) -> Blocked | tuple[int, ...]:
    """How an operand of a picture of that rank lies: in blocks, or row-major."""
    if array.ndim <= rank:
        return shape
    halo = (array.shape[-2] - shape[3]) // 2
    return Blocked(*shape, array.shape[-1], halo, line=rank == 3)


def _in_blocks(array: Array, lanes: int, rank: int) -> Array:
    n, c, h, w = _operand_shape(array.shape, rank)
    filled = np.zeros((n, -(-c // lanes) * lanes, h, w), dtype=np.float32)
    filled[:, :c] = array.reshape(n, c, h, w)
    blocks = aligned_floats((n, -(-c // lanes), h, w, lanes))
    blocks[...] = np.moveaxis(filled.reshape(n, -1, lanes, h, w), 2, 4)
    return blocks


@dataclass(frozen=True, slots=True)
class _Elementwise:
    """Everything that the code depends on; buffers come as (y, *operands).

    Parameters
    ----------
    masks : which operands are bool.
    blocked : the output where it is blocked, with a halo to clear.
    """

    lanes: int
    expression: Expression
    rows: Rows
    masks: tuple[bool, ...]
    blocked: Blocked | None

    def ir(self) -> str:
        module = Module(self.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")], alias=True)
        pointers = [f.argument("%args", index) for index in range(len(self.rows.walks))]
        f.loop("%end", lambda unit: self._unit(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _unit(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        rows, walks = self.rows, self.rows.walks
        indices, chunk = rows.split(f, unit)
        starts = [
            self._at(f, number, pointer, rows.offset(f, walks[number], indices, chunk))
            for number, pointer in enumerate(pointers)
        ]
        steady = {
            number: self._load(f, number, starts[number], self.lanes)
            for number, walk in enumerate(walks)
            if number and not walk.step
        }

        def vector(index: Value, count: int) -> None:
            self._vector(f, starts, steady, index, count)

        tail = rows.length % self.lanes
        if rows.chunks == 1:
            full = rows.length // self.lanes
            if full:
                f.loop(full, lambda index: vector(index, self.lanes))
            if tail:
                vector(str(full), tail)
        else:
            left = f.sub(rows.length, f.mul(chunk, CHUNK))
            here = f.divide(f.minimum(CHUNK, left), self.lanes)[0]
            f.loop(here, lambda index: vector(index, self.lanes))
            if tail:
                last = f.compare("eq", chunk, rows.chunks - 1)
                f.when(last, lambda: vector(here, tail))
        if self.blocked is not None and self.blocked.halo:
            start = f.at(pointers[0], rows.offset(f, walks[0], indices, "0"))
            clear_halo(f, self.blocked, start, indices[-1])

    def _vector(
        self,
        f: Function,
        starts: Sequence[Value],
        steady: Mapping[int, Value],
        index: Value,
        count: int,
    ) -> None:
        places = [
            start if number in steady else self._at(f, number, start, f.mul(index, walk.step))
            for number, (start, walk) in enumerate(zip(starts, self.rows.walks, strict=True))
        ]
        vectors = {
            position: steady.get(number) or self._load(f, number, places[number], count)
            for number, position in enumerate(self.expression.tensors, 1)
        }
        f.store_lanes(self.expression.apply(f, vectors), places[0], count)

    def _at(self, f: Function, number: int, pointer: Value, elements: Value) -> Value:
        """Address of an element of a buffer."""
        if number and self.masks[number - 1]:
            return f.emit(f"getelementptr inbounds i8, ptr {pointer}, i64 {elements}")
        return f.at(pointer, elements)

    def _load(self, f: Function, number: int, pointer: Value, count: int) -> Value:
        """A vector of an operand, or the mask that a bool one is."""
        spread = self.rows.walks[number].spread
        if self.masks[number - 1]:
            return _spread_mask(f, pointer) if spread else _mask(f, pointer, count)
        return f.broadcast(pointer) if spread else f.load_lanes(pointer, count)


def _mask(f: Function, pointer: Value, count: int) -> Value:
    """The first ``count`` of neighbouring bools; the others are undefined."""
    lanes = ", ".join(f"i32 {lane}" if lane < count else "i32 poison" for lane in range(f.lanes))
    part, kind = f.emit(f"load <{count} x i8>, ptr {pointer}, align 1"), f"<{count} x i8>"
    whole = f.emit(f"shufflevector {kind} {part}, {kind} poison, <{f.lanes} x i32> <{lanes}>")
    return f.emit(f"icmp ne <{f.lanes} x i8> {whole}, zeroinitializer")


def _spread_mask(f: Function, pointer: Value) -> Value:
    """One bool in every lane."""
    number = f.emit(f"load i8, ptr {pointer}, align 1")
    return f.comparison("une", f.splat(f.emit(f"uitofp i8 {number} to float")), f.constant(0.0))
