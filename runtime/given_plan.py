"""Plans that a user gives: planning makes their choices again, or refuses.

Schemes stay; tiles and shares that are not offered, because a session has other threads or a
machine other vectors than those that the plan was made for, are chosen anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mnnpy.runtime.contracts import Choice
from mnnpy.runtime.errors import PlanError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.user import user_operators
from mnnpy.runtime.plan_file import load_plan
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class GivenPlan:
    """A plan whose choices are kept. Memory is planned anew, so that no file decides on it."""

    plan: Plan

    def constraints(self, inputs: Mapping[str, Value], base: Constraints) -> Constraints:
        """Constraints under which planning chooses as the plan did; pins in ``base`` win.

        Raises
        ------
        PlanError
            Where the plan was made for other shapes.
        """
        for name, value in inputs.items():
            expected = self.plan.inputs.get(name, value.type)
            if value.type != expected:
                raise PlanError(
                    f"the plan was made for input {name!r} of {expected}, not {value.type}: "
                    "make one for this shape, or run without a plan"
                )
        planned = {
            name: (choice.backend, choice.scheme, choice.config)
            for name, choice in self._choices().items()
        }
        regions = frozenset(
            tuple(node.name for node in step.node.op.graph.nodes)
            for stage in self.plan.stages
            for step in stage.steps
            if isinstance(step.node.op, Fused)
        )
        if base.parts is None:
            base = replace(base, parts=self.plan.parts.count, join=self.plan.join)
        return replace(base, planned=planned, regions=regions)

    def explained(self, made: Plan) -> Plan:
        """The plan made anew, with the given one's costs and rejected candidates as its reasons."""
        same = self.plan.parts == made.parts
        parts = self.plan.parts if same else made.parts
        return replace(_explained(made, self._choices()), parts=parts)

    def _choices(self) -> dict[str, Choice]:
        steps = [step for stage in self.plan.stages for step in stage.steps]
        steps = [step for step in steps if step.choice.scheme not in ("copy", "object")]
        return {step.node.name: step.choice for step in steps}


def given_plan(graph: Graph, plan: Plan | str | Path) -> GivenPlan:
    """A plan, loaded where it is a path.

    Raises
    ------
    PlanError
        Where the file is no plan, or the plan was made for another model.
    """
    loaded = plan if isinstance(plan, Plan) else load_plan(plan, user_operators(graph))
    if loaded.fingerprint != graph.fingerprint:
        raise PlanError(
            f"the plan was made for the model {loaded.fingerprint[:12]}, "
            f"this one is {graph.fingerprint[:12]}: make the plan again for this model"
        )
    return GivenPlan(loaded)


def _explained(made: Plan, given: Mapping[str, Choice]) -> Plan:
    steps = tuple(_explained_step(step, given) for step in made.steps)
    return replace(made, steps=steps, then=_explained(made.then, given) if made.then else None)


def _explained_step(step: Step, given: Mapping[str, Choice]) -> Step:
    choice = given.get(step.node.name)
    return step if choice is None or choice != step.choice else replace(step, choice=choice)
