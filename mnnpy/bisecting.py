"""Finding the step that computes something wrong, each step given inputs on which all agree.

A run walks the plan as it is, with its regions, layouts and kernels. Before each step what it reads
is replaced by what the trusted side has under these names, so that an error upstream neither hides
nor causes one downstream. Where the trusted side has no such value (fused operators and rewrites
bring in their own), it is what the operators' references make of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mnnpy.comparing import Difference, Tolerances, differences
from mnnpy.data_sets import write_data_set
from mnnpy.runtime.errors import ConfigError, MnnpyError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import type_of
from mnnpy.runtime.model_file import save_model
from mnnpy.runtime.ops.fused import Copy, Fused
from mnnpy.runtime.plan_file import save_plan
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Step
from mnnpy.session import Session
from mnnpy.trusted import Trusted

MODEL_NAME, PLAN_NAME = "model.mnnpy", "plan.json"
"""Files of a repro, beside its data set."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A step whose result is wrong though its inputs are right.

    Parameters
    ----------
    step : the step as planned: node, operator, backend, scheme and config.
    difference : of its worst output.
    blames_kernel : whether the operator's own reference gives what is expected of it. Otherwise the
        operator, its attributes or constants (the conversion) are at fault.
    graph : the step's nodes alone, its weights as constants; None for a copy.
    inputs, outputs : what they are given and what is expected of them.
    """

    step: Step
    difference: Difference
    blames_kernel: bool
    graph: Graph | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(slots=True)
class Bisection:
    """What a run found, in the order of its steps.

    Parameters
    ----------
    random : operators that were not judged, since no two of their runs are alike.
    """

    steps: int = 0
    culprits: list[Culprit] = field(default_factory=list)
    random: list[str] = field(default_factory=list)


def bisect(
    session: Session, trusted: Trusted, feeds: Any, tolerances: Tolerances | None = None
) -> Bisection:
    """Judge every step of a session's run on these feeds.

    Raises
    ------
    ExecutionError
        Where a step fails; names it.
    """
    graph = session.graph
    known = trusted.tensors(feeds, list(graph.producers))
    watch = _Watch(graph, known, tolerances or Tolerances())
    session.run_with_callbacks(feeds, watch.before, watch.after)
    return watch.found


def write_repro(culprit: Culprit, folder: Path, tolerances: Tolerances | None = None) -> bool:
    """Write the step as a model with its plan, and a data set of inputs and expected outputs.

    Returns
    -------
    Whether the step alone, planned as it was, is wrong as it was inside the whole.

    Raises
    ------
    ConfigError
        Where the step is a copy between layouts, which no model can hold.
    """
    if culprit.graph is None:
        raise ConfigError(f"{culprit.step.node}: copies between layouts and devices have no repro")
    folder.mkdir(parents=True, exist_ok=True)
    save_model(culprit.graph, folder / MODEL_NAME)
    write_data_set(folder / "test_data_set_0", culprit.inputs, culprit.outputs)
    try:
        session = Session(
            culprit.graph, culprit.step.choice.backend, constraints=_pinned(culprit.step)
        )
        found = session.run(culprit.inputs)
        save_plan(session.executable(culprit.inputs).plan, folder / PLAN_NAME)
    except MnnpyError:
        return False
    judged = differences(culprit.outputs, found, tolerances or Tolerances())
    return not all(d.fits for d in judged)


def _pinned(step: Step) -> Constraints:
    """Constraints under which the step alone is planned as it is."""
    choice, node = step.choice, step.node
    names = tuple(n.name for n in node.op.graph.nodes) if isinstance(node.op, Fused) else ()
    pin = (choice.backend, choice.scheme, choice.config)
    return Constraints(
        pinned={} if choice.scheme == "object" else {node.name: pin},
        regions=frozenset({names} if names else ()),
        parts=1,
    )


class _Watch:
    """Stands between the steps of one run."""

    def __init__(self, graph: Graph, right: Mapping[str, Any], tolerances: Tolerances) -> None:
        self.found = Bisection()
        self._graph = graph
        self._right = dict(right)
        self._tolerances = tolerances
        self._varying = set(graph.inputs)
        self._origins: dict[str, str] = {}
        self._inputs: dict[str, Any] = {}

    def before(self, step: Step, arrays: Mapping[str, Any]) -> Mapping[str, Any]:
        """Hand the step what is right; keep it, since the step may overwrite its inputs."""
        replaced = {}
        for name, array in arrays.items():
            right = self._right.get(self._origin(name))
            if name in self._varying and _alike(right, array):
                replaced[name] = right
        self._inputs = {n: replaced[n] if n in replaced else _kept(a) for n, a in arrays.items()}
        return replaced

    def after(self, step: Step, arrays: Mapping[str, Any]) -> None:
        """Compare what the step wrote with what is right."""
        node = step.node
        self.found.steps += 1
        self._varying.update(node.outputs)
        if isinstance(node.op, Copy):
            self._origins[node.outputs[0]] = self._origin(node.reads[0])
        if not node.op.deterministic:
            self.found.random.append(str(node))
            return
        found = {self._origin(n): array for n, array in arrays.items() if self._is_read(n)}
        if not all(name in self._right for name in found):
            for name, content in self._reference(node).items():
                self._right.setdefault(name, content)
        expected = {name: self._right[name] for name in found if name in self._right}
        wrong = [d for d in differences(expected, found, self._tolerances) if not d.fits]
        if wrong:
            worst = max(wrong, key=lambda d: d.relative)
            self.found.culprits.append(self._culprit(step, worst, expected))

    def _culprit(self, step: Step, worst: Difference, expected: Mapping[str, Any]) -> Culprit:
        reference = self._reference(step.node)
        judged = differences(expected, {**expected, **reference}, self._tolerances)
        graph, inputs = self._alone(step.node, tuple(expected))
        return Culprit(step, worst, all(d.fits for d in judged), graph, inputs, dict(expected))

    def _alone(self, node: Node, outputs: tuple[str, ...]) -> tuple[Graph | None, dict[str, Any]]:
        """The step as a graph of its own, and what it is given."""
        if isinstance(node.op, Copy):
            return None, {}
        names: tuple[str | None, ...]
        if isinstance(node.op, Fused):
            nodes, names = node.op.graph.nodes, tuple(node.op.graph.inputs)
        else:
            names = tuple(None if name is None else self._origin(name) for name in node.inputs)
            nodes = (replace(node, inputs=names),)
        inputs: dict[str, Any] = {}
        constants: dict[str, Any] = {}
        for name, place in zip(names, node.inputs, strict=True):
            if name is not None and place is not None:
                kind = inputs if place in self._varying else constants
                kind[name] = self._inputs[place]
        types = {name: type_of(value) for name, value in inputs.items()}
        return Graph(nodes, types, outputs, constants, node.name), inputs

    def _reference(self, node: Node) -> dict[str, Any]:
        """What the operator's reference makes of the inputs, as far as it can."""
        inputs = [None if name is None else self._inputs[name] for name in node.inputs]
        try:
            with np.errstate(all="ignore"):
                results = node.op.reference(np, *inputs)
        except Exception:  # The trusted side judges what references cannot compute.
            return {}
        arrays = (np.asarray(r) if np.isscalar(r) else r for r in results)
        return dict(zip(map(self._origin, node.outputs), arrays, strict=False))

    def _is_read(self, name: str) -> bool:
        """Whether anybody wants an output; of others nobody says what they hold."""
        graph = self._graph
        return name in self._origins or name in graph.consumers or name in graph.outputs

    def _origin(self, name: str) -> str:
        """The graph's name of a value that a copy step has brought elsewhere."""
        return self._origins.get(name, name)


def _alike(right: Any, array: Any) -> bool:
    """Whether content of the trusted side fits where ours lies."""
    if isinstance(right, np.ndarray) and isinstance(array, np.ndarray):
        return bool(right.dtype == array.dtype and right.shape == array.shape)
    return type(right) is type(array)


def _kept(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
