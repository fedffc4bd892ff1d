"""Epilogues: what is done to a vector of sums before it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.backends.numba_cpu.pointwise import apply_pointwise, constant_number, unfit_pointwise
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.preinference.regions import RUNNING, Anchored

Place = int | float | None
"""An operand: a region input by its position or ``RUNNING``, a number, or absent."""


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Elementwise operators behind a product, on the running value, numbers and tensors.

    ``added`` are the region inputs that steps read as tensors of the output's shape.
    """

    steps: tuple[tuple[Op, tuple[Place, ...]], ...]
    added: tuple[int, ...]

    def apply(self, f: Function, value: Value, operands: tuple[Value, ...]) -> Value:
        """``operands`` are the vectors of the added tensors at this place."""
        vectors = dict(zip(self.added, operands, strict=True))
        for op, places in self.steps:
            vectors[RUNNING] = value
            read = [vectors[place] if isinstance(place, int) else place for place in places]
            value = apply_pointwise(f, op, read)
        return value


def read_epilogue(task: Task, anchored: Anchored) -> Epilogue | str:
    """The epilogue of a region, or in words why it cannot be generated."""
    steps: list[tuple[Op, tuple[Place, ...]]] = []
    added: dict[int, None] = {}
    for step in anchored.epilogue:
        places: list[Place] = []
        for position in step.operands:
            number = None
            if position is not None and position != RUNNING:
                number = constant_number(task, position)
                if number is None:
                    added[position] = None
            places.append(position if number is None else number)
        reason = unfit_pointwise(step.op, places)
        if reason is not None:
            return reason
        steps.append((step.op, tuple(places)))
    for position in added:
        if task.tensor(position) != task.output() or task.known(position) is not None:
            return "reads something else than numbers and tensors of the output's shape"
    return Epilogue(tuple(steps), tuple(added))
