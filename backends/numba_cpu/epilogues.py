"""Epilogues: what is done to a vector of sums before it is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.preinference.regions import RUNNING, Anchored

Apply = Callable[[Function, Op, Value, tuple[float | None, ...]], Value]


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Steps behind a product: activations with constant parameters, and added tensors.

    ``added`` are the region inputs that are added, in the order of the steps that add them.
    """

    steps: tuple[tuple[Op, tuple[float | None, ...]], ...]
    added: tuple[int, ...]

    def apply(self, f: Function, value: Value, operands: tuple[Value, ...]) -> Value:
        """``operands`` are the vectors of the added tensors at this place."""
        waiting = iter(operands)
        for op, parameters in self.steps:
            others = [next(waiting)] if isinstance(op, ew.Add) else []
            value = apply_elementwise(f, op, [value, *others], parameters)
        return value


def read_epilogue(task: Task, anchored: Anchored) -> Epilogue | str:
    """The epilogue of a region, or in words why it cannot be generated."""
    steps: list[tuple[Op, tuple[float | None, ...]]] = []
    added: list[int] = []
    for step in anchored.epilogue:
        others = [operand for operand in step.operands if operand != RUNNING]
        if isinstance(step.op, ew.Add):
            (operand,) = others
            assert operand is not None
            if task.tensor(operand) != task.output() or task.known(operand) is not None:
                return "adds something else than a tensor of the output's shape"
            steps.append((step.op, ()))
            added.append(operand)
            continue
        if type(step.op) not in _APPLY:
            return f"{step.op.kind} is not generated as an epilogue"
        parameters = constant_scalars(task, others)
        if parameters is None:
            return f"{step.op.kind} with parameters that are not constant"
        steps.append((step.op, parameters))
    return Epilogue(tuple(steps), tuple(added))


def constant_scalars(
    task: Task, positions: Sequence[int | None]
) -> tuple[float | None, ...] | None:
    """Numbers that inputs hold; None where one of them is no constant of one element."""
    numbers: list[float | None] = []
    for position in positions:
        known = None if position is None else task.known(position)
        if position is not None and (known is None or np.size(known) != 1):
            return None
        numbers.append(None if known is None else float(np.reshape(known, -1)[0]))
    return tuple(numbers)


def elementwise_parameters(task: Task) -> tuple[float | None, ...] | str:
    """Constant parameters of a lone elementwise operator, or why it cannot be generated."""
    if isinstance(task.op, ew.Binary):
        return ()
    positions = [i if value is not None else None for i, value in enumerate(task.inputs)][1:]
    numbers = constant_scalars(task, positions)
    return "its parameters are not constant" if numbers is None else numbers


def apply_elementwise(
    f: Function, op: Op, values: Sequence[Value], parameters: tuple[float | None, ...]
) -> Value:
    """An elementwise operator on vectors in registers."""
    if isinstance(op, ew.Binary):
        return f.arithmetic(_BINARY[type(op)], *values)
    return _APPLY[type(op)](f, op, values[0], parameters)


def _relu(f: Function, op: Op, value: Value, parameters: tuple[float | None, ...]) -> Value:
    return f.larger(value, f.constant(0.0))


def _clip(f: Function, op: Op, value: Value, parameters: tuple[float | None, ...]) -> Value:
    lower, upper = (*parameters, None, None)[:2]
    if lower is not None:
        value = f.larger(value, f.constant(lower))
    return value if upper is None else f.smaller(value, f.constant(upper))


def _leaky_relu(f: Function, op: Op, value: Value, parameters: tuple[float | None, ...]) -> Value:
    assert isinstance(op, act.LeakyRelu)
    scaled = f.arithmetic("fmul", value, f.constant(op.alpha))
    positive = f.emit(f"fcmp uge {f.vector} {value}, zeroinitializer")
    return f.emit(f"select <{f.lanes} x i1> {positive}, {f.vector} {value}, {f.vector} {scaled}")


def _hard_sigmoid(f: Function, op: Op, value: Value, parameters: tuple[float | None, ...]) -> Value:
    assert isinstance(op, act.HardSigmoid)
    line = f.fma(value, f.constant(op.alpha), f.constant(op.beta))
    return f.smaller(f.larger(line, f.constant(0.0)), f.constant(1.0))


def _hard_swish(f: Function, op: Op, value: Value, parameters: tuple[float | None, ...]) -> Value:
    line = f.fma(value, f.constant(1 / 6), f.constant(0.5))
    gate = f.smaller(f.larger(line, f.constant(0.0)), f.constant(1.0))
    return f.arithmetic("fmul", value, gate)


_BINARY: dict[type[Op], str] = {ew.Add: "fadd", ew.Sub: "fsub", ew.Mul: "fmul", ew.Div: "fdiv"}

_APPLY: dict[type[Op], Apply] = {
    act.Relu: _relu,
    act.Clip: _clip,
    act.LeakyRelu: _leaky_relu,
    act.HardSigmoid: _hard_sigmoid,
    act.HardSwish: _hard_swish,
}
"""Operators that can be generated on a vector in registers."""
