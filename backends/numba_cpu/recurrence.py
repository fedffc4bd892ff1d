"""Code of recurrent layers: time steps, each a product of states and what follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.gates import Cell, Units, cells, resets_ahead, silence, state_names
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.panels import Panels
from mnnpy.runtime.ops.recurrent import Recurrent


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Everything that the code depends on.

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
    def tensors(self) -> tuple[str, ...]:
        """What pointers point to, in order."""
        optional = {"peepholes": self.peepholes, "lengths": self.lengths}
        given = (name for name, there in optional.items() if there)
        return ("inputs", "weights", "biases", "sums", *state_names(self.op), "outputs", *given)

    @property
    def phases(self) -> tuple[_Phase, ...]:
        """What a step does, in order."""
        every, first = self.panels.count, 2 * self._gate // self.panels.width
        ranges = ((0, first), (first, every)) if resets_ahead(self.op) else ((0, every),)
        found = zip(("h", "reset"), ranges, cells(self.op), strict=False)
        return tuple(_Phase(*entry) for entry in found)

    # All steps in one call: a unit is a tile of samples of one direction.

    @property
    def units(self) -> int:
        return self.op.directions * self.panels.tiles

    def ir(self) -> str:
        p = self.panels

        def unit(f: Function, index: Value, tensors: Mapping[str, Value]) -> None:
            direction, tile = f.divide(index, p.tiles)
            at = self._of_direction(f, tensors, direction)
            last = f.compare("eq", tile, p.tiles - 1)
            rows = f.select(last, "i64", p.last_rows, p.rows) if p.tiles > 1 else p.last_rows

            def step(turn: Value) -> None:
                time = self._time(f, turn, direction)
                for phase in self.phases:
                    f.loop(
                        phase.panels[1],
                        lambda panel, phase=phase: self._multiply(f, panel, tile, at, phase),
                        start=phase.panels[0],
                    )

                    def sample(row: Value, phase: _Phase = phase) -> None:
                        row = f.add(row, f.mul(tile, p.rows))
                        self._sample(f, time, row, at, phase.cell, self._each_vector)

                    f.loop(rows, sample)

            f.loop(self.steps, step)

        return self._code(unit, True)

    # Two calls for each phase of a step: all threads share its products, then its vectors.

    def product_units(self, phase: _Phase) -> int:
        """Tiles of panels of every direction."""
        first, last = phase.panels
        return self.op.directions * (last - first) * self.panels.tiles

    def product_ir(self, phase: _Phase) -> str:
        first, last = phase.panels

        def unit(f: Function, index: Value, tensors: Mapping[str, Value]) -> None:
            index, tile = f.divide(index, self.panels.tiles)
            direction, panel = f.divide(index, last - first)
            at = self._of_direction(f, tensors, direction)
            self._multiply(f, f.add(panel, first), tile, at, phase)

        return self._code(unit, True)

    @property
    def cell_units(self) -> int:
        """Vectors of every sample and direction."""
        return self.op.directions * self.panels.m * -(-self.panels.k // self.panels.lanes)

    def cell_ir(self, phase: _Phase) -> str:
        """The turn of the step lies behind the tensors."""

        def unit(f: Function, index: Value, tensors: Mapping[str, Value]) -> None:
            index, vector = f.divide(index, -(-self.panels.k // f.lanes))
            direction, sample = f.divide(index, self.panels.m)
            at = self._of_direction(f, tensors, direction)
            turn = f.load_index(f.argument("%args", len(self.tensors)))

            def walk(f: Function, row: Mapping[str, Value], visit: Callable[[Units], None]) -> None:
                self._one_vector(f, vector, row, visit)

            self._sample(f, self._time(f, turn, direction), sample, at, phase.cell, walk)

        return self._code(unit, False)

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

    def _multiply(
        self, f: Function, panel: Value, tile: Value, at: Mapping[str, Value], phase: _Phase
    ) -> None:
        p = self.panels
        column = f.mul(panel, p.width)
        w, b = f.at(at["weights"], f.mul(column, p.k)), f.at(at["biases"], column)
        p.call(f, panel, tile, [at[phase.source], w, b, f.at(at["sums"], column)])

    @property
    def _gate(self) -> int:
        """Floats of one gate."""
        return self.panels.n // self.op.gates

    def _sample(
        self,
        f: Function,
        time: Value,
        sample: Value,
        at: Mapping[str, Value],
        cell: Cell,
        walk: _Walk,
    ) -> None:
        """What follows the products of a sample, along its vectors."""
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
            walk(f, row, lambda units: cell(units, self.op))
            return
        place = f.emit(f"getelementptr inbounds i32, ptr {at['lengths']}, i64 {sample}")
        length = f.emit(f"sext i32 {f.emit(f'load i32, ptr {place}, align 4')} to i64")
        alive, over = (f.compare(how, time, length) for how in ("slt", "sge"))
        f.when(alive, lambda: walk(f, row, lambda units: cell(units, self.op)))
        f.when(over, lambda: walk(f, row, silence))

    def _each_vector(
        self, f: Function, row: Mapping[str, Value], visit: Callable[[Units], None]
    ) -> None:
        full, tail = divmod(self.panels.k, f.lanes)
        if full:
            f.loop(full, lambda v: visit(self._vector(f, v, row, f.lanes)))
        if tail:
            visit(self._vector(f, str(full), row, tail))

    def _one_vector(
        self, f: Function, vector: Value, row: Mapping[str, Value], visit: Callable[[Units], None]
    ) -> None:
        full, tail = divmod(self.panels.k, f.lanes)
        inside, last = (f.compare(how, vector, full) for how in ("slt", "eq"))
        if full:
            f.when(inside, lambda: visit(self._vector(f, vector, row, f.lanes)))
        if tail:
            f.when(last, lambda: visit(self._vector(f, vector, row, tail)))

    def _vector(self, f: Function, vector: Value, row: Mapping[str, Value], count: int) -> Units:
        first = f.mul(vector, f.lanes)
        return Units(f, {n: f.at(place, first) for n, place in row.items()}, self._gate, count)

    def _code(
        self, unit: Callable[[Function, Value, Mapping[str, Value]], None], multiplies: bool
    ) -> str:
        module = Module(self.panels.lanes)
        if multiplies:
            self.panels.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        tensors = {name: f.argument("%args", i) for i, name in enumerate(self.tensors)}
        f.loop("%end", lambda index: unit(f, index, tensors), start="%begin")
        f.finish()
        return str(module)


@dataclass(frozen=True, slots=True)
class _Phase:
    """Part of a step: the states that are multiplied, with which panels, and what follows."""

    source: str
    panels: tuple[int, int]
    cell: Cell


_Walk = Callable[[Function, Mapping[str, Value], Callable[[Units], None]], None]
"""Visits the vectors of a row."""
