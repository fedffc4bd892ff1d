"""Scheme search: measure a network's candidates on this machine and keep the best plan.

The first, small form: every layer is measured by itself, with cold near caches, within a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from mnnpy.runtime.contracts import Backend, Config, Task
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import TensorType, Value
from mnnpy.runtime.measuring import Stopwatch, random_array
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.parted import bind_plan
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.planner import Planned
from mnnpy.runtime.preinference.selection import Candidate
from mnnpy.runtime.preinference.task_keys import task_key

_WORTH_MEASURING = 8.0
"""Candidates predicted to be slower than the best by more than this factor are not measured."""

Progress = Callable[[float, str], None]
"""Called with the fraction of the budget that is spent and what is measured next."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate of one layer with its times in seconds; None where it was not measured."""

    backend: str
    scheme: str
    config: Config
    predicted: float
    measured: float | None


@dataclass(frozen=True, slots=True)
class Layer:
    """What was measured of the steps that share one task."""

    kind: str
    nodes: tuple[str, ...]
    candidates: tuple[Measured, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The plan that was found, beside the default one, both timed alternately in one run.

    ``best`` is the faster of the two: a search never returns something slower than the default.
    """

    layers: tuple[Layer, ...]
    default: Planned
    searched: Planned
    default_seconds: float
    searched_seconds: float

    @property
    def best(self) -> Planned:
        better = self.searched_seconds <= self.default_seconds
        return self.searched if better else self.default


@dataclass(slots=True)
class _Measurer:
    """Measures tasks while the budget lasts, the most expensive first."""

    backends: Mapping[str, Backend]
    stopwatch: Stopwatch
    budget: float
    seed: int
    progress: Progress | None
    started: float = field(default_factory=perf_counter)
    seconds: dict[object, list[float | None]] = field(default_factory=dict)

    def measure_all(self, tasks: Sequence[tuple[Task, Sequence[Candidate]]]) -> None:
        by_cost = sorted(tasks, key=lambda entry: -entry[1][0].cost.seconds)
        for task, candidates in by_cost:
            spent = perf_counter() - self.started
            if spent > self.budget:
                break
            if self.progress is not None:
                self.progress(spent / self.budget, task.op.kind)
            self.seconds[task_key(task)] = [
                self._time(task, candidate, candidates[0].cost.seconds) for candidate in candidates
            ]

    def _time(self, task: Task, candidate: Candidate, best: float) -> float | None:
        if candidate.cost.seconds > _WORTH_MEASURING * best and candidate.kernel.scheme != "view":
            return None
        backend, kernel, config = (
            self.backends[candidate.backend],
            candidate.kernel,
            candidate.config,
        )
        seconds = self.stopwatch.time(backend, kernel, task, config, self.seed)
        # One kernel alone is not worth waking threads that devices know the gain of.
        device = backend.describe().limited(self.stopwatch.threads)
        return device.spread(seconds, kernel.work(task, config).launches)

    def __call__(self, task: Task, candidates: Sequence[Candidate]) -> Sequence[float] | None:
        """Seconds per candidate; those not measured keep their predicted distance to the best."""
        found = self.seconds.get(task_key(task))
        if found is None:
            return None
        pairs = [(m, c.cost.seconds) for m, c in zip(found, candidates, strict=True) if m]
        if not pairs:
            return None
        ratio = max(measured / max(predicted, 1e-9) for measured, predicted in pairs)
        return [
            measured if measured is not None else candidate.cost.seconds * ratio
            for measured, candidate in zip(found, candidates, strict=True)
        ]


def search(
    graph: Graph,
    inputs: Mapping[str, Value],
    backends: Sequence[Backend],
    constraints: Constraints,
    *,
    threads: int | None = None,
    budget: float = 30.0,
    repeats: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> SearchResult:
    """Measure the allowed candidates of every layer and plan with what was measured.

    Whether a batch runs in parts, and where these join, is decided by prediction, before; the plan
    of that decision is the default that the searched one is compared with. Parts side by side join
    only where the constraints say so: layers of parts are measured on one thread, later ones run on
    all.

    Parameters
    ----------
    budget : seconds for measuring layers; what is not reached keeps its prediction.
    repeats : timed runs per candidate.

    Raises
    ------
    PlanError
        Where the constraints leave an operator without a candidate.
    """
    default = plan_batch(graph, inputs, backends, constraints, threads)
    parts = default.plan.parts
    join = default.plan.join if parts.lanes == 1 else constraints.join
    constraints = replace(constraints, parts=parts.count, join=join)
    stopwatch = Stopwatch(threads if parts.lanes == 1 else 1, repeats)
    by_name = {backend.name: backend for backend in backends}
    measurer = _Measurer(by_name, stopwatch, budget, seed, progress)
    seen: dict[object, tuple[Task, Sequence[Candidate]]] = {}

    def collect(task: Task, candidates: Sequence[Candidate]) -> None:
        seen.setdefault(task_key(task), (task, list(candidates)))

    plan_batch(graph, inputs, backends, constraints, threads, collect)
    measurer.measure_all(list(seen.values()))
    searched = plan_batch(graph, inputs, backends, constraints, threads, measurer)
    times = compare((default, searched), backends, threads, repeats, seed)
    layers = _layers(searched, seen, measurer)
    return SearchResult(layers, default, searched, *times)


def compare(
    plans: Sequence[Planned],
    backends: Sequence[Backend],
    threads: int | None,
    repeats: int,
    seed: int,
) -> list[float]:
    """Best whole-run seconds of each plan, the plans taking turns."""
    packed = PackedWeights()
    bound = [bind_plan(planned, backends, packed, threads) for planned in plans]
    rng = np.random.default_rng(seed)
    feeds = {
        name: random_array(tuple(int(dim) for dim in tensor.shape), tensor, rng)
        for name, tensor in plans[0].plan.inputs.items()
        if isinstance(tensor, TensorType)
    }
    best = [np.inf] * len(bound)
    for turn in range(repeats + 2):
        for index, executable in enumerate(bound):
            start = perf_counter()
            executable.run(feeds)
            elapsed = perf_counter() - start
            if turn >= 2:
                best[index] = min(best[index], elapsed)
    return best


def _layers(
    planned: Planned,
    seen: Mapping[object, tuple[Task, Sequence[Candidate]]],
    measurer: _Measurer,
) -> tuple[Layer, ...]:
    nodes: dict[object, list[str]] = {}
    for stage in planned.stages:
        for step in stage.plan.steps:
            if step.choice.scheme not in ("copy", "object"):
                key = task_key(Task.of(step.node, stage.values))
                nodes.setdefault(key, []).append(step.node.name)
    layers = []
    for key, (task, candidates) in seen.items():
        times = measurer.seconds.get(key, [None] * len(candidates))
        measured = tuple(
            Measured(c.backend, c.kernel.scheme, c.config, c.cost.seconds, seconds)
            for c, seconds in zip(candidates, times, strict=True)
        )
        layers.append(Layer(task.op.kind, tuple(nodes.get(key, ())), measured))
    return tuple(layers)
