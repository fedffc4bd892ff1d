"""Control flow: If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from mnnpy.runtime.errors import ExecutionError, ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, UndecidedError, differ
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    BOOL,
    INT64,
    Array,
    ArrayModule,
    TensorType,
    Type,
    Value,
    type_of,
)
from mnnpy.runtime.ops.bodies import (
    Control,
    Given,
    empty_stack,
    infer_body,
    is_foreign,
    joined,
    outward,
    run_body,
    settle,
    stack,
    stacked,
    symbols,
    type_or_unknown,
    value_of,
)
from mnnpy.runtime.ops.shape_math import normalize_axis


@dataclass(frozen=True, slots=True)
class If(Control):
    """One of two graphs, ONNX If-25. Both take the same captured values, and nothing else."""

    then_branch: Graph
    else_branch: Graph

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.then_branch, self.else_branch

    def infer(self, condition: Value, *captured: Given) -> tuple[Type, ...]:
        if condition.constant:
            branches = [infer_body(self._branch(condition.known), captured)]
        else:
            branches = self._inferred(captured)
        types = [map(type_or_unknown, branch) for branch in branches]
        outer = symbols(captured)
        return tuple(outward(reduce(joined, each), outer) for each in zip(*types, strict=True))

    def _inferred(self, captured: Sequence[Given]) -> list[list[Value]]:
        """What the branches give; one that these shapes do not fit matters only where it is taken.

        Raises ``ShapeError`` where they fit neither.
        """
        branches, errors = [], []
        for body in self.bodies:
            try:
                branches.append(infer_body(body, captured))
            except ShapeError as error:
                errors.append(error)
        if not branches:
            raise errors[0]
        return branches

    def content(self, inputs: Sequence[Given]) -> tuple[Array, ...] | None:
        condition, *captured = inputs
        if condition is None or not condition.constant or not self.deterministic:
            return None
        results = infer_body(self._branch(condition.known), captured)
        outer = symbols(captured)
        return tuple(_outward_content(result, outer) for result in results)

    def reference(self, xp: ArrayModule, condition: Array, *captured: Array) -> tuple[Array, ...]:
        return run_body(self._branch(condition), xp, captured)

    def _branch(self, condition: Array) -> Graph:
        return self.then_branch if bool(condition.reshape(())) else self.else_branch


@dataclass(frozen=True, slots=True)
class Loop(Control):
    """A graph repeated ``count`` times or while it says so, ONNX Loop-25.

    inputs : count and condition (both optional), states, captured values.
    body : (iteration, condition, *states, *captured) -> (condition, *states, *collected).
    outputs : final states, then what every iteration collected, stacked along a new first axis.

    Without a ``condition`` but with a ``count``, what the body says of it is ignored.
    """

    body: Graph
    states: int

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def infer(self, count: Given, condition: Given, *rest: Given) -> tuple[Type, ...]:
        states, captured = rest[: self.states], rest[self.states :]
        true = Value(TensorType(BOOL, ()), np.array(True))
        iteration = Value(TensorType(INT64, ()))

        def step(types: Sequence[Type]) -> list[Value]:
            return infer_body(self.body, (iteration, true, *map(value_of, types), *captured))

        types, results = settle(step, [type_or_unknown(state) for state in states], first=1)
        ends = self._fixed_count(count, condition, results[0])
        collected = results[1 + self.states :]
        outer = symbols(rest)
        return (
            *(outward(state, outer) for state in types),
            *(outward(stacked(type_or_unknown(value), ends, 0), outer) for value in collected),
        )

    def _fixed_count(self, count: Given, condition: Given, goes_on: Value) -> Dim:
        """Number of iterations, where only ``count`` decides it."""
        if condition is not None:
            if not condition.constant or not goes_on.constant:
                return UNKNOWN
            if not bool(np.asarray(condition.known).reshape(())):
                return 0
            if not bool(np.asarray(goes_on.known).reshape(())):
                return 1 if count is None else UNKNOWN
        if count is None or count.known is None:
            return UNKNOWN
        (number,) = count.ints()
        return max(number, 0) if isinstance(number, int) else number

    def _never_ends(self) -> bool:
        """Whether the body says to go on whatever it is given."""
        true = Value(TensorType(BOOL, ()), np.array(True))
        unknown = [Value(None)] * (len(self.body.inputs) - 2)
        goes_on, *_ = infer_body(self.body, (Value(None), true, *unknown))
        return goes_on.constant and bool(np.asarray(goes_on.known).reshape(()))

    def reference(
        self, xp: ArrayModule, count: Array | None, condition: Array | None, *rest: Array
    ) -> tuple[Array, ...]:
        states, captured = list(rest[: self.states]), rest[self.states :]
        limit = None if count is None else int(count.reshape(()))
        goes_on = condition is None or bool(condition.reshape(()))
        ignored = condition is None and limit is not None
        if goes_on and limit is None and self._never_ends():
            raise ExecutionError(
                "the loop never ends: it has no trip count, and its body leaves the condition true"
            )
        collected: list[list[Array]] = [[] for _ in self.body.outputs[1 + self.states :]]
        iteration = 0
        while goes_on and (limit is None or iteration < limit):
            feeds = (xp.asarray(iteration, dtype=np.int64), xp.asarray(True), *states, *captured)
            said, *results = run_body(self.body, xp, feeds)
            goes_on = ignored or bool(said.reshape(()))
            states = results[: self.states]
            for values, value in zip(collected, results[self.states :], strict=True):
                values.append(value)
            iteration += 1
        if iteration == 0:
            arrays = (None if x is None else Value(type_of(x)) for x in (count, condition, *rest))
            return (*states, *(empty_stack(xp, t) for t in self.infer(*arrays)[self.states :]))
        return (*states, *(stack(xp, values) for values in collected))


@dataclass(frozen=True, slots=True)
class Scan(Control):
    """A graph run over the slices of its scanned inputs, ONNX Scan-25.

    inputs : states, scanned tensors, captured values.
    body : (*states, *slices, *captured) -> (*states, *collected).
    outputs : final states, then collected slices, stacked along ``scan_output_axes``.
    Directions are 0 (forward) or 1 (from the end). Empty axes and directions mean zeros.
    """

    body: Graph
    states: int
    num_scan_inputs: int
    scan_input_axes: tuple[int, ...] = ()
    scan_input_directions: tuple[int, ...] = ()
    scan_output_axes: tuple[int, ...] = ()
    scan_output_directions: tuple[int, ...] = ()

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def infer(self, *inputs: Given) -> tuple[Type, ...]:
        states, scanned, captured = self._parts(inputs)
        slices: list[Value] = []
        length: Dim = UNKNOWN
        for value, given in zip(scanned, self._input_axes(), strict=True):
            tensor = _tensor_type(value)
            axis = normalize_axis(given, tensor.rank)
            shape = tensor.shape
            if differ(length, shape[axis]):
                raise ShapeError(f"scanned axes have lengths {length} and {shape[axis]}")
            length = shape[axis] if not isinstance(length, int) else length
            slices.append(Value(TensorType(tensor.dtype, (*shape[:axis], *shape[axis + 1 :]))))

        def step(types: Sequence[Type]) -> list[Value]:
            return infer_body(self.body, (*map(value_of, types), *slices, *captured))

        types, results = settle(step, [type_or_unknown(state) for state in states], first=0)
        outer = symbols(inputs)
        collected = zip(results[self.states :], self._output_axes(), strict=True)
        return (
            *(outward(state, outer) for state in types),
            *(
                outward(stacked(type_or_unknown(value), length, axis), outer)
                for value, axis in collected
            ),
        )

    def reference(self, xp: ArrayModule, *inputs: Array) -> tuple[Array, ...]:
        states, scanned, captured = self._parts(inputs)
        rows = [
            xp.moveaxis(x, axis, 0) for x, axis in zip(scanned, self._input_axes(), strict=True)
        ]
        directions = self.scan_input_directions or (0,) * len(rows)
        rows = [row[::-1] if back else row for row, back in zip(rows, directions, strict=True)]
        collected: list[list[Array]] = [[] for _ in self.body.outputs[self.states :]]
        for slices in zip(*rows, strict=True):
            results = run_body(self.body, xp, (*states, *slices, *captured))
            states = results[: self.states]
            for values, value in zip(collected, results[self.states :], strict=True):
                values.append(value)
        if len(rows[0]) == 0:
            types = self.infer(*(Value(type_of(x)) for x in inputs))[self.states :]
            return (*states, *(empty_stack(xp, t) for t in types))
        backward = self.scan_output_directions or (0,) * len(collected)
        ordered = [v[::-1] if back else v for v, back in zip(collected, backward, strict=True)]
        stacks = zip(ordered, self._output_axes(), strict=True)
        return (*states, *(stack(xp, values, axis) for values, axis in stacks))

    def _parts(self, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """(states, scanned, captured)."""
        scanned, captured = self.states, self.states + self.num_scan_inputs
        return inputs[:scanned], inputs[scanned:captured], inputs[captured:]

    def _input_axes(self) -> tuple[int, ...]:
        return self.scan_input_axes or (0,) * self.num_scan_inputs

    def _output_axes(self) -> tuple[int, ...]:
        return self.scan_output_axes or (0,) * (len(self.body.outputs) - self.states)


def _tensor_type(value: Given) -> TensorType:
    if value is None:
        raise UndecidedError("an absent input")
    return value.tensor


def _outward_content(value: Value, outer: frozenset[str]) -> Array | None:
    """Content that a branch gives, unless it holds sizes known only inside."""
    known = value.known
    if known is None or value.constant:
        return known
    return None if any(is_foreign(dim, outer) for dim in known.reshape(-1).tolist()) else known


OPERATORS: tuple[type[Op], ...] = (If, Loop, Scan)
