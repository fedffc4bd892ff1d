"""What recurrent layers make of their products: gates and states, one vector of units at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.backends.numba_cpu.pointwise import apply_pointwise
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops.recurrent import GRU, LSTM, RNN, Recurrent

ACTIVATIONS: Mapping[str, Callable[[float, float], Op]] = {
    "Relu": lambda alpha, beta: act.Relu(),
    "Tanh": lambda alpha, beta: act.Tanh(),
    "Sigmoid": lambda alpha, beta: act.Sigmoid(),
    "LeakyRelu": lambda alpha, beta: act.LeakyRelu(alpha),
    "HardSigmoid": lambda alpha, beta: act.HardSigmoid(alpha, beta),
    "Elu": lambda alpha, beta: act.Elu(alpha),
    "Softsign": lambda alpha, beta: act.Softsign(),
    "Softplus": lambda alpha, beta: act.Softplus(),
}
"""Activations of gates that are generated, of their alpha and beta."""


def state_names(op: Recurrent) -> tuple[str, ...]:
    """What a layer hands on from step to step, or from one half of a step to the other."""
    if isinstance(op, LSTM):
        return ("h", "c")
    return ("h", "reset") if resets_ahead(op) else ("h",)


def resets_ahead(op: Recurrent) -> bool:
    """Whether a gate acts on the state ahead of its product, so that a step has two of them."""
    return isinstance(op, GRU) and not op.linear_before_reset


@dataclass(frozen=True, slots=True)
class Units:
    """One vector of hidden units of one sample.

    Parameters
    ----------
    at : where they lie.
    gate : floats from one gate to the next.
    count : lanes that count.
    """

    f: Function
    at: Mapping[str, Value]
    gate: int
    count: int

    def load(self, name: str) -> Value:
        return self.f.load_lanes(self.at[name], self.count)

    def store(self, value: Value, *names: str) -> None:
        for name in names:
            self.f.store_lanes(value, self.at[name], self.count)

    def of_gate(self, name: str, gate: int) -> Value:
        """What inputs, sums or peepholes hold for a gate."""
        return self.f.load_vector(self.f.at(self.at[name], gate * self.gate))

    def total(self, gate: int) -> Value:
        """What inputs and states together give a gate."""
        parts = (self.of_gate(name, gate) for name in ("inputs", "sums"))
        return self.f.arithmetic("fadd", *parts)


Cell: TypeAlias = Callable[[Units, Any], None]
"""What follows the products, for one vector of units; reads and writes states and outputs."""


def _activate(f: Function, op: Recurrent, index: int, value: Value) -> Value:
    """The layer's activation of this number, both directions having the same."""
    if op.clip is not None:
        limits = f.constant(-op.clip), f.constant(op.clip)
        value = f.smaller(f.larger(value, limits[0]), limits[1])
    name, alpha, beta = op.named_activations()[index]
    return apply_pointwise(f, ACTIVATIONS[name](alpha, beta), [value])


def _simple(units: Units, op: RNN) -> None:
    units.store(_activate(units.f, op, 0, units.total(0)), "h", "outputs")


def _lstm(units: Units, op: LSTM) -> None:
    f, c = units.f, units.load("c")
    into, out, forget, new = (units.total(gate) for gate in range(4))

    def watching(gate: Value, index: int, c: Value) -> Value:
        """With what a peephole shows of the cells."""
        if "peepholes" not in units.at:
            return gate
        return f.multiply_add(units.of_gate("peepholes", index), c, gate)

    into = _activate(f, op, 0, watching(into, 0, c))
    if op.input_forget:
        forget = f.arithmetic("fsub", f.constant(1.0), into)
    else:
        forget = _activate(f, op, 0, watching(forget, 2, c))
    added = f.arithmetic("fmul", into, _activate(f, op, 1, new))
    c = f.multiply_add(forget, c, added)
    out = _activate(f, op, 0, watching(out, 1, c))
    units.store(c, "c")
    units.store(f.arithmetic("fmul", out, _activate(f, op, 2, c)), "h", "outputs")


def _reset_behind(units: Units, op: GRU) -> None:
    """GRU whose reset gate acts on the product of the state."""
    f = units.f
    update, reset = (_activate(f, op, 0, units.total(gate)) for gate in range(2))
    new = f.multiply_add(reset, units.of_gate("sums", 2), units.of_gate("inputs", 2))
    _mix(units, update, _activate(f, op, 1, new))


def _reset(units: Units, op: GRU) -> None:
    """First half of a GRU whose reset gate acts on the state: the gates.

    The update gate stays where its sums were.
    """
    f = units.f
    update, reset = (_activate(f, op, 0, units.total(gate)) for gate in range(2))
    f.store_vector(update, units.at["sums"])
    units.store(f.arithmetic("fmul", reset, units.load("h")), "reset")


def _after_reset(units: Units, op: GRU) -> None:
    """The second half."""
    _mix(units, units.of_gate("sums", 0), _activate(units.f, op, 1, units.total(2)))


def _mix(units: Units, update: Value, new: Value) -> None:
    f = units.f
    kept = f.arithmetic("fmul", update, units.load("h"))
    rest = f.arithmetic("fsub", f.constant(1.0), update)
    units.store(f.multiply_add(rest, new, kept), "h", "outputs")


def silence(units: Units) -> None:
    """Behind the end of a sequence."""
    units.store(units.f.constant(0.0), "outputs")


_CELLS: Mapping[type[Recurrent], Cell] = {RNN: _simple, LSTM: _lstm, GRU: _reset_behind}


def cells(op: Recurrent) -> tuple[Cell, ...]:
    """What follows the products of a step: one thing, or two with a product between them."""
    return (_reset, _after_reset) if resets_ahead(op) else (_CELLS[type(op)],)
