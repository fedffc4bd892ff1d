"""Elementwise operators on vectors in registers: which are generated, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from mnnpy.backends.numba_cpu import vector_math
from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops import logic

Operand: TypeAlias = Value | float | None
"""A vector, a number for all lanes, or an absent input."""


def apply_pointwise(f: Function, op: Op, operands: Sequence[Operand]) -> Value:
    """The operator's result for one vector; comparisons give and logic takes masks."""
    if isinstance(op, ew.Pow):
        base, exponent = operands
        return _POWERS[exponent].write(f, op, [base])
    vectors = [f.constant(o) if isinstance(o, float) else o for o in operands]
    return _POINTWISE[type(op)].write(f, op, vectors)


def unfit_pointwise(op: Op, operands: Sequence[object]) -> str | None:
    """Why an operator is not generated, its operands being numbers or anything else."""
    if isinstance(op, ew.Pow) and not (isinstance(operands[1], float) and operands[1] in _POWERS):
        return f"Pow is generated for the exponents {', '.join(map(str, _POWERS))}"
    return None if type(op) in GENERATED else f"{op.kind} is not generated"


def reads_mask(op: Op, position: int) -> bool:
    """Whether an operand is a mask, not a vector of floats."""
    return isinstance(op, _OF_MASKS) or (isinstance(op, ew.Where) and position == 0)


def gives_mask(op: Op) -> bool:
    """Whether the result is a mask."""
    return isinstance(op, (logic.Comparison, *_OF_MASKS))


def pointwise_operations(op: Op, operands: Sequence[object]) -> int:
    """About how many multiply-adds take as long as the operator."""
    known = _POWERS[operands[1]] if isinstance(op, ew.Pow) else _POINTWISE[type(op)]
    return known.operations


def constant_number(task: Task, position: int) -> float | None:
    """The number that a constant input of one element holds."""
    known = task.known(position)
    if known is None or known.size != 1 or known.dtype.kind not in "fiu":
        return None
    return float(np.reshape(known, -1)[0])


@dataclass(frozen=True, slots=True)
class _Pointwise:
    write: Callable[[Function, Any, Sequence[Any]], Value]
    operations: int


def _plain(write: Callable[..., Value], operations: int) -> _Pointwise:
    """A function of vectors that looks at no attributes."""
    return _Pointwise(lambda f, _, vectors: write(f, *vectors), operations)


def _intrinsic(name: str, operations: int) -> _Pointwise:
    return _Pointwise(lambda f, _, vectors: f.intrinsic(name, *vectors), operations)


def _arithmetic(operation: str, operations: int) -> _Pointwise:
    return _Pointwise(lambda f, _, vectors: f.arithmetic(operation, *vectors), operations)


def _folded(fold: Callable[[Function, Value, Value], Value]) -> _Pointwise:
    """A variadic operator by a function of two."""
    return _Pointwise(lambda f, _, vectors: reduce(lambda a, b: fold(f, a, b), vectors), 2)


def _comparison(how: str) -> _Pointwise:
    return _Pointwise(lambda f, _, vectors: f.comparison(how, *vectors), 1)


def _of_masks(operation: str) -> _Pointwise:
    return _Pointwise(
        lambda f, _, masks: f.emit(f"{operation} <{f.lanes} x i1> {', '.join(masks)}"), 1
    )


def _not(f: Function, mask: Value) -> Value:
    bits = ", ".join(["i1 true"] * f.lanes)
    return f.emit(f"xor <{f.lanes} x i1> {mask}, <{bits}>")


def _add(f: Function, a: Value, b: Value) -> Value:
    return f.arithmetic("fadd", a, b)


def _relu(f: Function, x: Value) -> Value:
    return f.larger(x, f.constant(0.0))


def _clip(f: Function, x: Value, lower: Value | None = None, upper: Value | None = None) -> Value:
    if lower is not None:
        x = f.larger(x, lower)
    return x if upper is None else f.smaller(x, upper)


def _leaky_relu(f: Function, op: act.LeakyRelu, vectors: Sequence[Value]) -> Value:
    return _prelu(f, vectors[0], f.constant(op.alpha))


def _prelu(f: Function, x: Value, slope: Value) -> Value:
    bent = f.arithmetic("fmul", x, slope)
    return f.choose(f.comparison("olt", x, f.constant(0.0)), bent, x)


def _thresholded_relu(f: Function, op: act.ThresholdedRelu, vectors: Sequence[Value]) -> Value:
    above = f.comparison("ogt", vectors[0], f.constant(op.alpha))
    return f.choose(above, vectors[0], f.constant(0.0))


def _shrink(f: Function, op: act.Shrink, vectors: Sequence[Value]) -> Value:
    (x,) = vectors
    bias = f.constant(op.bias)
    above = f.choose(
        f.comparison("ogt", x, f.constant(op.lambd)),
        f.arithmetic("fsub", x, bias),
        f.constant(0.0),
    )
    below = f.comparison("olt", x, f.constant(-op.lambd))
    return f.choose(below, f.arithmetic("fadd", x, bias), above)


def _hard_sigmoid(f: Function, op: act.HardSigmoid, vectors: Sequence[Value]) -> Value:
    line = f.fma(vectors[0], f.constant(op.alpha), f.constant(op.beta))
    return _clip(f, line, f.constant(0.0), f.constant(1.0))


def _hard_swish(f: Function, x: Value) -> Value:
    line = f.fma(x, f.constant(1 / 6), f.constant(0.5))
    return f.arithmetic("fmul", x, _clip(f, line, f.constant(0.0), f.constant(1.0)))


def _softsign(f: Function, x: Value) -> Value:
    below = f.arithmetic("fadd", f.intrinsic("fabs", x), f.constant(1.0))
    return f.arithmetic("fdiv", x, below)


def _swish(f: Function, op: act.Swish | act.SwiGLU, vectors: Sequence[Value]) -> Value:
    x, *others = vectors
    scaled = x if op.alpha == 1 else f.arithmetic("fmul", x, f.constant(op.alpha))
    gated = f.arithmetic("fmul", x, vector_math.sigmoid(f, scaled))
    return f.arithmetic("fmul", gated, others[0]) if others else gated


def _elu(f: Function, op: act.Elu, vectors: Sequence[Value]) -> Value:
    return _bent(f, vectors[0], vectors[0], op.alpha, 1.0)


def _selu(f: Function, op: act.Selu, vectors: Sequence[Value]) -> Value:
    return _bent(f, vectors[0], vectors[0], op.gamma * op.alpha, op.gamma)


def _celu(f: Function, op: act.Celu, vectors: Sequence[Value]) -> Value:
    (x,) = vectors
    return _bent(f, x, f.arithmetic("fdiv", x, f.constant(op.alpha)), op.alpha, 1.0)


def _bent(f: Function, x: Value, argument: Value, below: float, above: float) -> Value:
    """``above`` times x where that is positive, else ``below`` (exp(argument) - 1)."""
    straight = f.arithmetic("fmul", x, f.constant(above))
    power = vector_math.expm1_negative(f, f.smaller(argument, f.constant(0.0)))
    bent = f.arithmetic("fmul", power, f.constant(below))
    return f.choose(f.comparison("ogt", x, f.constant(0.0)), straight, bent)


def _gelu(f: Function, op: act.Gelu, vectors: Sequence[Value]) -> Value:
    by_tanh = op.approximate == "tanh"
    return (vector_math.gelu_by_tanh if by_tanh else vector_math.gelu)(f, vectors[0])


def _reciprocal(f: Function, x: Value) -> Value:
    return f.arithmetic("fdiv", f.constant(1.0), x)


def _sign(f: Function, x: Value) -> Value:
    one = f.intrinsic("copysign", f.constant(1.0), x)
    ordered = f.comparison("one", x, f.constant(0.0))
    return f.choose(ordered, one, f.arithmetic("fadd", x, f.constant(0.0)))


def _mean(f: Function, op: ew.Mean, vectors: Sequence[Value]) -> Value:
    total = reduce(lambda a, b: _add(f, a, b), vectors)
    return f.arithmetic("fdiv", total, f.constant(float(len(vectors))))


def _square(f: Function, x: Value) -> Value:
    return f.arithmetic("fmul", x, x)


def _cube(f: Function, x: Value) -> Value:
    return f.arithmetic("fmul", _square(f, x), x)


_OF_MASKS = (logic.And, logic.Or, logic.Xor, logic.Not)

_POWERS: Mapping[object, _Pointwise] = {
    -1.0: _plain(_reciprocal, 8),
    0.5: _intrinsic("sqrt", 12),
    1.0: _plain(lambda f, x: x, 0),
    2.0: _plain(_square, 1),
    3.0: _plain(_cube, 2),
}

_POINTWISE: Mapping[type[Op], _Pointwise] = {
    ew.Add: _arithmetic("fadd", 1),
    ew.Sub: _arithmetic("fsub", 1),
    ew.Mul: _arithmetic("fmul", 1),
    ew.Div: _arithmetic("fdiv", 8),
    ew.Max: _folded(Function.largest),
    ew.Min: _folded(lambda f, a, b: f.intrinsic("minimum", a, b)),
    ew.Sum: _folded(_add),
    ew.Mean: _Pointwise(_mean, 9),
    ew.Where: _plain(Function.choose, 1),
    ew.Abs: _intrinsic("fabs", 1),
    ew.Neg: _plain(vector_math.negative, 1),
    ew.Reciprocal: _plain(_reciprocal, 8),
    ew.Sqrt: _intrinsic("sqrt", 12),
    ew.Floor: _intrinsic("floor", 2),
    ew.Ceil: _intrinsic("ceil", 2),
    ew.Round: _intrinsic("rint", 2),
    ew.Sign: _plain(_sign, 4),
    ew.Exp: _plain(vector_math.exp, 20),
    ew.Log: _plain(vector_math.log, 30),
    ew.Erf: _plain(vector_math.erf, 50),
    ew.Sin: _plain(vector_math.sin, 40),
    ew.Cos: _plain(vector_math.cos, 40),
    act.Relu: _plain(_relu, 1),
    act.Clip: _plain(_clip, 2),
    act.LeakyRelu: _Pointwise(_leaky_relu, 3),
    act.PRelu: _plain(_prelu, 3),
    act.ThresholdedRelu: _Pointwise(_thresholded_relu, 2),
    act.Shrink: _Pointwise(_shrink, 6),
    act.HardSigmoid: _Pointwise(_hard_sigmoid, 3),
    act.HardSwish: _plain(_hard_swish, 4),
    act.Softsign: _plain(_softsign, 10),
    act.Sigmoid: _plain(vector_math.sigmoid, 30),
    act.Swish: _Pointwise(_swish, 32),
    act.SwiGLU: _Pointwise(_swish, 33),
    act.Tanh: _plain(vector_math.tanh, 28),
    act.Elu: _Pointwise(_elu, 20),
    act.Selu: _Pointwise(_selu, 20),
    act.Celu: _Pointwise(_celu, 28),
    act.Softplus: _plain(vector_math.softplus, 35),
    act.Mish: _plain(vector_math.mish, 32),
    act.Gelu: _Pointwise(_gelu, 50),
    logic.Equal: _comparison("oeq"),
    logic.Greater: _comparison("ogt"),
    logic.GreaterOrEqual: _comparison("oge"),
    logic.Less: _comparison("olt"),
    logic.LessOrEqual: _comparison("ole"),
    logic.And: _of_masks("and"),
    logic.Or: _of_masks("or"),
    logic.Xor: _of_masks("xor"),
    logic.Not: _plain(_not, 1),
}

GENERATED: frozenset[type[Op]] = frozenset((*_POINTWISE, ew.Pow))
"""Operators that can be generated on vectors in registers."""
