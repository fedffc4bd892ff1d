"""The plan: pure data that says how every step runs and where every value lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mnnpy.runtime.contracts import Choice
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.types import TensorType, Type
from mnnpy.runtime.layouts import Layout


@dataclass(frozen=True, slots=True)
class Slot:
    """Bytes ``offset`` to ``offset + nbytes`` of one arena, from one step to another, inclusive."""

    memory: str
    offset: int
    nbytes: int
    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where every value of a plan lies.

    Parameters
    ----------
    arenas : memory name -> bytes of its arena.
    slots : value name -> its place; views and values computed in place share bytes.
    layouts : value name -> its physical layout.
    workspaces : one per step, None where a step needs none.
    lower_bound : memory name -> the most bytes that are live at one step.
    borrowed : inputs and outputs that have no slot: they are read and written where the caller
        holds them, plain.
    """

    arenas: Mapping[str, int]
    slots: Mapping[str, Slot]
    layouts: Mapping[str, Layout]
    workspaces: tuple[Slot | None, ...]
    lower_bound: Mapping[str, int]
    borrowed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call: the node (an operator, a region or a copy) and how it runs.

    ``types`` are those of the values that the step writes (UnknownType where only the data says).
    ``aliases`` says, per output, which inputs already lie in its memory, so that nothing needs to
    be moved: (output, input) pairs of positions.
    """

    node: Node
    choice: Choice
    types: tuple[Type, ...] = ()
    aliases: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """How a batch runs: equal parts along the first axis of all inputs, one after another.

    Parameters
    ----------
    count : parts; 1 is the whole at once.
    lanes : parts that run side by side, each on a thread and in arenas of its own.
    weighed : number of parts -> predicted seconds of the run, for every way that was weighed.
    reason : why the batch cannot run in parts, where it cannot.
    """

    count: int = 1
    lanes: int = 1
    weighed: tuple[tuple[int, float], ...] = field(compare=False, default=())
    reason: str | None = field(compare=False, default=None)

    @property
    def rounds(self) -> int:
        """Times that one part takes until all are done."""
        return -(-self.count // self.lanes)


WHOLE = Parts()
"""A batch at once, or nothing that is a batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a graph (or, behind data-dependent sizes, a part of it) runs for one set of shapes.

    Parameters
    ----------
    fingerprint : of the graph that it was made for.
    inputs : concrete types of what is fed.
    outputs : what the caller or a later segment needs -> the value of the plan that holds it in
        host memory, plain.
    objects : values that live as Python objects or arrays of their own: sequences, strings, and
        results whose size only the data decides.
    complete : False where the segment ends at such a result and the rest is planned later.
    parts : how a batch runs; steps, outputs and memory are those of one part.
    then : where all parts join: the plan of what follows for the whole batch. Its inputs are the
        outputs of this one.
    """

    fingerprint: str
    inputs: Mapping[str, Type]
    outputs: Mapping[str, str]
    steps: tuple[Step, ...]
    memory: MemoryPlan
    objects: frozenset[str] = frozenset()
    complete: bool = True
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)
    parts: Parts = WHOLE
    then: Plan | None = None

    @property
    def seconds(self) -> float:
        """Predicted (or measured) time of all steps, for all parts of a batch."""
        seconds = self.parts.rounds * sum(step.choice.cost.seconds for step in self.steps)
        return seconds + (self.then.seconds if self.then else 0.0)

    @property
    def arena_nbytes(self) -> int:
        """Bytes of all arenas, and of what parts hand on where they join."""
        arenas = sum(s.parts.lanes * sum(s.memory.arenas.values()) for s in self.stages)
        handed = self.then.inputs.values() if self.then else ()
        return arenas + sum(t.nbytes for t in handed if isinstance(t, TensorType))

    @property
    def join(self) -> str | None:
        """The value at which parts join."""
        return next(iter(self.then.inputs)) if self.then else None

    @property
    def stages(self) -> tuple[Plan, ...]:
        """This plan, and those that follow it."""
        return (self, *(self.then.stages if self.then else ()))

    @property
    def backends(self) -> tuple[str, ...]:
        """Backends used, most steps first."""
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.choice.backend] = counts.get(step.choice.backend, 0) + 1
        return tuple(sorted(counts, key=lambda name: -counts[name]))

    def explain(self, step: int | str | None = None) -> str:
        """The plan as a table; asked for one step, every candidate that it was chosen from.

        Parameters
        ----------
        step : position of the step, or the name of a node in it.

        Raises
        ------
        PlanError
            Where the plan has no such step.
        """
        from mnnpy.runtime.preinference.explain import explain_plan, explain_step

        return explain_plan(self) if step is None else explain_step(self, step)
