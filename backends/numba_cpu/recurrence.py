"""Code of recurrent layers: all time steps of some samples, each a product and vectors of gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.panels import Panels
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


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Everything that the code depends on; one unit is a tile of samples of one direction.

    Gates lie side by side, each filled up to whole vectors.

    Parameters
    ----------
    panels : the product of states (samples, hidden) with one direction's matrix.
    inputs : floats between time steps, directions and samples of the inputs' products.
    outputs : the same of y.
    peepholes, lengths : whether there are any.
    """

    op: Recurrent
    steps: int
    panels: Panels
    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    peepholes: bool
    lengths: bool

    @property
    def units(self) -> int:
        return self.op.directions * self.panels.tiles

    @property
    def tensors(self) -> tuple[str, ...]:
        """What pointers point to, in order."""
        optional = {"peepholes": self.peepholes, "lengths": self.lengths}
        given = (name for name, there in optional.items() if there)
        return ("inputs", "weights", "biases", "sums", *state_names(self.op), "outputs", *given)

    def ir(self) -> str:
        module = Module(self.panels.lanes)
        self.panels.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        tensors = {name: f.argument("%args", i) for i, name in enumerate(self.tensors)}

        def unit(index: Value) -> None:
            direction, tile = f.divide(index, self.panels.tiles)
            at = self._of_direction(f, tensors, direction)
            f.loop(self.steps, lambda turn: self._step(f, self._time(f, turn, direction), tile, at))

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _of_direction(
        self, f: Function, tensors: Mapping[str, Value], direction: Value
    ) -> dict[str, Value]:
        p = self.panels
        pitches = {
            "inputs": self.inputs[1],
            "weights": p.count * p.k * p.width,
            "biases": p.n,
            "sums": p.m * p.n,
            "outputs": self.outputs[1],
            "peepholes": 3 * self._gate,
            "lengths": 0,
        }
        return {
            name: f.at(pointer, f.mul(direction, pitches.get(name, p.m * p.k)))
            for name, pointer in tensors.items()
        }

    def _time(self, f: Function, turn: Value, direction: Value) -> Value:
        if self.op.direction == "forward":
            return turn
        back = f.sub(self.steps - 1, turn)
        if self.op.direction == "reverse":
            return back
        return f.select(f.compare("ne", direction, 0), "i64", back, turn)

    def _step(self, f: Function, time: Value, tile: Value, at: Mapping[str, Value]) -> None:
        """One time step of a tile of samples: products of all units, then their gates."""
        p = self.panels
        last = f.compare("eq", tile, p.tiles - 1)
        rows = p.rows if p.tiles == 1 else f.select(last, "i64", p.last_rows, p.rows)
        for source, (start, stop), cell in self._phases():

            def multiply(panel: Value, source: str = source) -> None:
                column = f.mul(panel, p.width)
                w, b = f.at(at["weights"], f.mul(column, p.k)), f.at(at["biases"], column)
                p.call(f, panel, tile, [at[source], w, b, f.at(at["sums"], column)])

            def sample(row: Value, cell: _Cell = cell) -> None:
                self._sample(f, time, f.add(row, f.mul(tile, p.rows)), at, cell)

            f.loop(stop, multiply, start=start)
            f.loop(rows, sample)

    def _phases(self) -> tuple[tuple[str, tuple[int, int], _Cell], ...]:
        """What a step does: states that are multiplied, panels that they are multiplied with, and
        what follows."""
        every = self.panels.count
        if resets_ahead(self.op):
            first = 2 * self._gate // self.panels.width
            return (("h", (0, first), _reset), ("reset", (first, every), _after_reset))
        return (("h", (0, every), _CELLS[type(self.op)]),)

    @property
    def _gate(self) -> int:
        """Floats of one gate."""
        return self.panels.n // self.op.gates

    def _sample(
        self, f: Function, time: Value, sample: Value, at: Mapping[str, Value], cell: _Cell
    ) -> None:
        p, places = self.panels, {"inputs": self.inputs, "outputs": self.outputs}
        row = {
            name: f.at(at[name], f.add(f.mul(time, by_time), f.mul(sample, by_sample)))
            for name, (by_time, _, by_sample) in places.items()
        }
        row["sums"] = f.at(at["sums"], f.mul(sample, p.n))
        row |= {name: f.at(at[name], f.mul(sample, p.k)) for name in state_names(self.op)}
        if self.peepholes:
            row["peepholes"] = at["peepholes"]
        if not self.lengths:
            self._each_vector(f, row, lambda vector: cell(vector, self.op))
            return
        place = f.emit(f"getelementptr inbounds i32, ptr {at['lengths']}, i64 {sample}")
        length = f.emit(f"sext i32 {f.emit(f'load i32, ptr {place}, align 4')} to i64")
        alive, over = (f.compare(how, time, length) for how in ("slt", "sge"))
        f.when(alive, lambda: self._each_vector(f, row, lambda vector: cell(vector, self.op)))
        f.when(over, lambda: self._each_vector(f, row, _silence))

    def _each_vector(
        self, f: Function, row: Mapping[str, Value], visit: Callable[[_Units], None]
    ) -> None:
        full, tail = divmod(self.panels.k, f.lanes)

        def units(first: Value, count: int) -> None:
            at = {name: f.at(pointer, first) for name, pointer in row.items()}
            visit(_Units(f, at, self._gate, count))

        if full:
            f.loop(full, lambda index: units(f.mul(index, f.lanes), f.lanes))
        if tail:
            units(str(full * f.lanes), tail)


def state_names(op: Recurrent) -> tuple[str, ...]:
    """What a layer hands on from step to step, or from one half of a step to the other."""
    if isinstance(op, LSTM):
        return ("h", "c")
    return ("h", "reset") if resets_ahead(op) else ("h",)


def resets_ahead(op: Recurrent) -> bool:
    """Whether a gate acts on the state ahead of its product, so that a step has two of them."""
    return isinstance(op, GRU) and not op.linear_before_reset


@dataclass(frozen=True, slots=True)
class _Units:
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


_Cell = Callable[[_Units, Any], None]
"""What follows the products, for one vector of units; reads and writes states and outputs."""


def _activate(f: Function, op: Recurrent, index: int, value: Value) -> Value:
    """The layer's activation of this number, both directions having the same."""
    if op.clip is not None:
        limits = f.constant(-op.clip), f.constant(op.clip)
        value = f.smaller(f.larger(value, limits[0]), limits[1])
    name, alpha, beta = op.named_activations()[index]
    return apply_pointwise(f, ACTIVATIONS[name](alpha, beta), [value])


def _simple(units: _Units, op: RNN) -> None:
    units.store(_activate(units.f, op, 0, units.total(0)), "h", "outputs")


def _lstm(units: _Units, op: LSTM) -> None:
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


def _reset_behind(units: _Units, op: GRU) -> None:
    """GRU whose reset gate acts on the product of the state."""
    f = units.f
    update, reset = (_activate(f, op, 0, units.total(gate)) for gate in range(2))
    new = f.multiply_add(reset, units.of_gate("sums", 2), units.of_gate("inputs", 2))
    _mix(units, update, _activate(f, op, 1, new))


def _reset(units: _Units, op: GRU) -> None:
    """First half of a GRU whose reset gate acts on the state: the gates.

    The update gate stays where its sums were.
    """
    f = units.f
    update, reset = (_activate(f, op, 0, units.total(gate)) for gate in range(2))
    f.store_vector(update, units.at["sums"])
    units.store(f.arithmetic("fmul", reset, units.load("h")), "reset")


def _after_reset(units: _Units, op: GRU) -> None:
    """The second half."""
    _mix(units, units.of_gate("sums", 0), _activate(units.f, op, 1, units.total(2)))


def _mix(units: _Units, update: Value, new: Value) -> None:
    f = units.f
    kept = f.arithmetic("fmul", update, units.load("h"))
    rest = f.arithmetic("fsub", f.constant(1.0), update)
    units.store(f.multiply_add(rest, new, kept), "h", "outputs")


def _silence(units: _Units) -> None:
    """Behind the end of a sequence."""
    units.store(units.f.constant(0.0), "outputs")


_CELLS: Mapping[type[Recurrent], _Cell] = {RNN: _simple, LSTM: _lstm, GRU: _reset_behind}
