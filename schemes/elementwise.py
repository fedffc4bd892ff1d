"""Elementwise operators written straight into their output, and chains of them in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, Array, ArrayModule
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.schemes.geometry import in_order

_TRANSCENDENTAL = (act.Sigmoid, act.Tanh, ew.Exp, ew.Log, ew.Sin, ew.Cos, ew.Tan)

Writer = Callable[[ArrayModule, Any, Sequence[Array], Array], Run]


class ElementwiseInPlace(Scheme):
    """One array-module call per arithmetic step, without temporaries where the operator allows."""

    name = "elementwise"
    operators = (ew.Elementwise,)

    def reject(self, task: Task) -> str | None:
        if any(value is not None and value.dtype == object for value in task.inputs):
            return "strings are Python objects"
        return None

    def work(self, task: Task, config: Config) -> Work:
        return Work(task.macs, task.nbytes * _passes(task.op))

    def inplace(self, task: Task) -> tuple[int, ...]:
        """Inputs of the output's type; of Clip only the first, since its bounds are read later."""
        y = task.output()
        taken = task.inputs[:1] if isinstance(task.op, act.Clip) else task.inputs
        return tuple(
            index
            for index, value in enumerate(taken)
            if value is not None and value.known is None and value.tensor == y
        )

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        return write(xp, task.op, buffers.inputs, buffers.outputs[0])


def _passes(op: Op) -> int:
    """About how many additions of the same size take as long as the operator."""
    if type(op) not in _WRITERS and (not isinstance(op, ew.Elementwise) or op.ufunc is None):
        return 20
    return 4 if isinstance(op, _TRANSCENDENTAL) else 1


def write(xp: ArrayModule, op: Op, inputs: Sequence[Array | None], out: Array) -> Run:
    """Work that computes an elementwise operator into ``out``, which may be one of its inputs."""
    writer = _WRITERS.get(type(op))
    present = [x for x in inputs if x is not None]
    if writer is not None and out.dtype.kind == "f" and len(present) == len(inputs):
        return writer(xp, op, present, out)
    ufunc = op.ufunc if isinstance(op, ew.Elementwise) else None
    reads_like_out = out.dtype == BOOL or all(x.dtype == out.dtype for x in present)
    arity = 1 if isinstance(op, ew.Unary) else 2
    if ufunc is not None and len(present) == arity and reads_like_out and out.dtype.kind in "fiub":
        return partial(getattr(xp, ufunc), *present, out=out)

    def refer() -> None:
        out[...] = op.reference(xp, *inputs)[0]

    return refer


def _relu(xp: ArrayModule, op: Op, inputs: Sequence[Array], out: Array) -> Run:
    return partial(xp.maximum, inputs[0], out.dtype.type(0), out=out)


def _clip(xp: ArrayModule, op: Op, inputs: Sequence[Array], out: Array) -> Run:
    x, *bounds = inputs
    bounds = [bound.reshape(()) for bound in bounds]
    if len(bounds) == 2:
        return partial(x.clip, *bounds, out=out)
    return partial(xp.maximum, x, bounds[0], out=out) if bounds else partial(copy, x, out)


def copy(x: Array, out: Array) -> None:
    """out = x."""
    out[...] = x


def _div(xp: ArrayModule, op: Op, inputs: Sequence[Array], out: Array) -> Run:
    return partial(xp.true_divide, *inputs, out=out)


def _reciprocal(xp: ArrayModule, op: Op, inputs: Sequence[Array], out: Array) -> Run:
    return partial(xp.true_divide, out.dtype.type(1), inputs[0], out=out)


def _sigmoid(xp: ArrayModule, op: Op, inputs: Sequence[Array], out: Array) -> Run:
    """(tanh(x / 2) + 1) / 2: no overflow on either side."""
    half = out.dtype.type(0.5)
    return in_order(
        [
            partial(xp.multiply, inputs[0], half, out=out),
            partial(xp.tanh, out, out=out),
            partial(xp.multiply, out, half, out=out),
            partial(xp.add, out, half, out=out),
        ]
    )


def _hard_sigmoid(xp: ArrayModule, op: act.HardSigmoid, inputs: Sequence[Array], out: Array) -> Run:
    scalar = out.dtype.type
    return in_order(
        [
            partial(xp.multiply, inputs[0], scalar(op.alpha), out=out),
            partial(xp.add, out, scalar(op.beta), out=out),
            partial(xp.maximum, out, scalar(0), out=out),
            partial(xp.minimum, out, scalar(1), out=out),
        ]
    )


_WRITERS: dict[type[Op], Writer] = {
    act.Relu: _relu,
    act.Clip: _clip,
    act.Sigmoid: _sigmoid,
    act.HardSigmoid: _hard_sigmoid,
    ew.Div: _div,
    ew.Reciprocal: _reciprocal,
}


def broadcast_at(xp: ArrayModule, operand: Array, shape: Sequence[int], index: Any) -> Array:
    """The part of a broadcast operand that meets ``index`` of an array of ``shape``."""
    if np.prod(operand.shape) == 1:
        return operand.reshape(())
    return xp.broadcast_to(operand, tuple(shape))[index]
