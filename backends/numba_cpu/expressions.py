"""Elementwise operators as one expression: what a kernel evaluates on vectors in registers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.backends.numba_cpu.pointwise import (
    apply_pointwise,
    constant_number,
    gives_mask,
    pointwise_operations,
    reads_mask,
    unfit_pointwise,
)
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, FLOAT32
from mnnpy.runtime.ops.fused import Fused

Place = int | float | None
"""An operand: a value by its number, a number for all lanes, or absent."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Operators one after another; the last one's result is the expression's.

    Values are numbered: the task's inputs, then the results of the steps. ``tensors`` are the
    inputs that are read as tensors, the others being numbers.
    """

    inputs: int
    steps: tuple[tuple[Op, tuple[Place, ...]], ...]
    tensors: tuple[int, ...]

    def apply(self, f: Function, vectors: Mapping[int, Value]) -> Value:
        """The result, from a vector (of a bool tensor a mask) of each of ``tensors``."""
        known = dict(vectors)
        result = ""
        for number, (op, places) in enumerate(self.steps, self.inputs):
            read = [known[place] if isinstance(place, int) else place for place in places]
            result = known[number] = apply_pointwise(f, op, read)
        return result

    @property
    def operations(self) -> int:
        """About how many multiply-adds take as long as one element."""
        return sum(pointwise_operations(op, places) for op, places in self.steps)


def read_expression(task: Task) -> Expression | str:
    """An elementwise operator or a region of such, or in words why it cannot be generated."""
    nodes, names = _nodes(task)
    number: dict[str, Place] = {}
    tensors: list[int] = []
    masks: list[bool] = []
    for position, name in enumerate(names):
        constant = constant_number(task, position)
        number[name] = position if constant is None else constant
        value = task.inputs[position]
        masks.append(value is not None and value.dtype == BOOL)
        if constant is None and value is not None:
            if value.dtype not in (FLOAT32, BOOL):
                return f"{value.type} is not float32"
            tensors.append(position)
    steps: list[tuple[Op, tuple[Place, ...]]] = []
    for node in nodes:
        places = tuple(None if name is None else number[name] for name in node.inputs)
        reason = unfit_pointwise(node.op, places)
        if reason is not None:
            return reason
        for position, place in enumerate(places):
            if reads_mask(node.op, position) != (isinstance(place, int) and masks[place]):
                return f"{node.op.kind} of such types is not generated"
        masks.append(gives_mask(node.op))
        number[node.outputs[0]] = len(names) + len(steps)
        steps.append((node.op, places))
    return Expression(len(names), tuple(steps), tuple(tensors))


def _nodes(task: Task) -> tuple[tuple[Node, ...], list[str]]:
    """The operators, and the names under which they read the task's inputs."""
    if isinstance(task.op, Fused):
        return task.op.graph.nodes, list(task.op.graph.inputs)
    names = [f"x{position}" for position in range(len(task.inputs))]
    present = zip(names, task.inputs, strict=True)
    reads = tuple(None if value is None else name for name, value in present)
    return (Node("alone", task.op, reads, ("y",)),), names
