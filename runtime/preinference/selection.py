"""Selection: for every node or region a backend, scheme and parameters, of least total cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mnnpy.runtime.contracts import Backend, Choice, Config, Cost, Kernel, Rejected, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.errors import PlanError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import TensorType, Type, Value
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.constraints import Constraints, shown_config
from mnnpy.runtime.preinference.covering import Proposal, cover_by
from mnnpy.runtime.preinference.error_budget import cheapest_within
from mnnpy.runtime.preinference.pbqp import Matrix, Vector, solve_pbqp
from mnnpy.runtime.preinference.task_keys import task_key


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to run a node."""

    backend: str
    kernel: Kernel
    config: Config
    input_layouts: tuple[Layout, ...]
    output_layouts: tuple[Layout, ...]
    cost: Cost
    memory: str


Measure: TypeAlias = Callable[[Task, Sequence[Candidate]], Sequence[float] | None]
"""Measured seconds of every candidate of a task, or None to go by the predictions."""


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """A node or region with its task and choice."""

    node: Node
    task: Task
    choice: Choice
    kernel: Kernel
    memory: str


class Selector:
    """Weighs candidates for one graph and one set of shapes."""

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Value],
        backends: Sequence[Backend],
        constraints: Constraints,
        measure: Measure | None = None,
        threads: int | None = None,
        lanes: int = 1,
    ) -> None:
        self.graph = graph
        self.values = values
        self.backends = backends
        self.devices = {b.name: b.describe().limited(threads, lanes) for b in backends}
        self.constraints = constraints
        self.measure = measure
        self._memo: dict[object, tuple[list[Candidate], list[Rejected]]] = {}
        self._conversions: dict[object, float] = {}

    def select(self, nodes: Sequence[Node]) -> list[Selected]:
        """Cover ``nodes`` by single nodes and regions and choose for each."""
        cover = self._cover(nodes)
        tasks = [Task.of(node, self.values) for node in cover]
        weighed = [self._measured(node, task) for node, task in zip(cover, tasks, strict=True)]
        for node, (candidates, rejected) in zip(cover, weighed, strict=True):
            if not candidates:
                raise PlanError(_no_candidate(node, rejected))
        chosen = self._within_budget(cover, [candidates for candidates, _ in weighed])
        return [
            self._selected(node, task, best, *every)
            for node, task, best, every in zip(cover, tasks, chosen, weighed, strict=True)
        ]

    def _within_budget(
        self, cover: Sequence[Node], weighed: Sequence[Sequence[Candidate]]
    ) -> Sequence[Candidate]:
        """The cheapest choices; where their errors sum up to too much, the lowest price for errors
        that brings them down."""

        def at_price(price: float) -> list[Candidate]:
            options = [_cheapest_per_signature(candidates, price) for candidates in weighed]
            choices = self._solve(cover, options, price)
            return [among[choice] for among, choice in zip(options, choices, strict=True)]

        budget = self.constraints.error_budget
        return cheapest_within(budget, at_price, lambda c: c.cost.max_error, _exchangeable)

    def candidates(self, node: Node, task: Task) -> tuple[list[Candidate], list[Rejected]]:
        """Everything that could run the task, and everything that could not with its reason."""
        alone = node.name if self.constraints.concerns(node) else None
        key = (alone, task_key(task))
        if key not in self._memo:
            self._memo[key] = self._weigh(node, task)
        return self._memo[key]

    def _measured(self, node: Node, task: Task) -> tuple[list[Candidate], list[Rejected]]:
        """Candidates with measured costs where the measurer gives them, cheapest first."""
        candidates, rejected = self.candidates(node, task)
        seconds = self.measure(task, candidates) if self.measure and candidates else None
        if seconds is None:
            return candidates, rejected
        timed = [
            replace(c, cost=replace(c.cost, seconds=s, measured=True))
            for c, s in zip(candidates, seconds, strict=True)
        ]
        return sorted(timed, key=lambda c: c.cost.seconds), rejected

    def _weigh(self, node: Node, task: Task) -> tuple[list[Candidate], list[Rejected]]:
        candidates: list[Candidate] = []
        rejected: list[Rejected] = []
        for backend in self.backends:
            device = self.devices[backend.name]
            # What a plan chose is not refused for being too little work for more threads.
            asked_of = device.limited(1) if self.constraints.is_planned(node) else device
            for kernel in backend.kernels(task.op):
                reason = self.constraints.reason_against(
                    node, backend.name, kernel.scheme, None
                ) or kernel.reject(task, asked_of)
                if reason is not None:
                    rejected.append(Rejected(backend.name, kernel.scheme, (), reason, None))
                    continue
                for config in self.constraints.among(node, kernel.configs(task, device)):
                    cost = self._cost(device, kernel, task, config)
                    reason = self._reason_by_cost(node, backend.name, kernel.scheme, config, cost)
                    if reason is not None:
                        rejected.append(Rejected(backend.name, kernel.scheme, config, reason, cost))
                        continue
                    layouts = kernel.layouts(task, config)
                    if any(_misplaced(task, *read) for read in enumerate(layouts[0])):
                        reason = "it wants another layout of a constant, which lies plain"
                        rejected.append(Rejected(backend.name, kernel.scheme, config, reason, cost))
                        continue
                    candidates.append(
                        Candidate(backend.name, kernel, config, *layouts, cost, device.memory)
                    )
        asked = self.backends[0].name
        candidates = _preferred(
            candidates,
            rejected,
            lambda c: c.memory == self.devices[asked].memory,
            f"{asked} can run it without leaving its memory",
        )
        candidates = _preferred(
            candidates, rejected, lambda c: not c.kernel.last_resort, "a last resort"
        )
        candidates.sort(key=lambda c: c.cost.seconds)
        return candidates, rejected

    @staticmethod
    def _cost(device: Device, kernel: Kernel, task: Task, config: Config) -> Cost:
        return Cost(
            device.seconds(kernel.scheme, kernel.work(task, config), task.handed_nbytes),
            kernel.workspace_nbytes(task, config),
            kernel.max_error(task, config),
        )

    def _reason_by_cost(
        self, node: Node, backend: str, scheme: str, config: Config, cost: Cost
    ) -> str | None:
        limit = self.constraints.max_workspace_nbytes
        if cost.max_error > self.constraints.max_error:
            return f"error {cost.max_error:.1e} is above the limit {self.constraints.max_error:.1e}"
        if limit is not None and cost.workspace_nbytes > limit:
            return f"workspace {cost.workspace_nbytes} B is above the limit {limit} B"
        return self.constraints.reason_against(node, backend, scheme, config)

    def _cover(self, nodes: Sequence[Node]) -> list[Node]:
        """Replace nodes by the given regions, else by those that save most."""
        given = self.constraints.regions
        if not self.constraints.fuse:
            return list(nodes)
        among = {node.name for node in nodes}
        proposals: list[Proposal] = []
        seen: set[tuple[str, ...]] = set()
        for backend in self.backends:
            for parts in backend.regions(self.graph, self.values):
                names = tuple(part.name for part in parts)
                if names in seen or not among.issuperset(names):
                    continue
                seen.add(names)
                region = self._region(parts)
                saving = self._saving(parts, region) if given is None else float(names in given)
                if saving > 0:
                    proposals.append(Proposal(parts, region, saving))
        taken: dict[str, Node | None] = {}
        for chosen in cover_by(proposals):
            taken.update((part.name, None) for part in chosen.parts)
            taken[chosen.parts[-1].name] = chosen.region
        covered = [taken.get(node.name, node) for node in nodes]
        return [node for node in covered if node is not None]

    def _region(self, parts: Sequence[Node]) -> Node:
        reads = {name for part in parts for name in part.reads}
        types = {name: t for name in reads if (t := self.values[name].type) is not None}
        graph = self.graph.extract(parts, types)
        return Node(parts[0].name, Fused(graph), tuple(graph.inputs), graph.outputs)

    def _saving(self, parts: Sequence[Node], region: Node) -> float:
        whole, _ = self.candidates(region, Task.of(region, self.values))
        if not whole:
            return -np.inf
        total = 0.0
        for part in parts:
            single, _ = self.candidates(part, Task.of(part, self.values))
            if not single:
                return np.inf
            total += single[0].cost.seconds
        return total - whole[0].cost.seconds

    def _solve(
        self, cover: Sequence[Node], options: Sequence[Sequence[Candidate]], price: float
    ) -> list[int]:
        costs = [np.array([_priced(c, price) for c in candidates]) for candidates in options]
        if all(len(candidates) == 1 for candidates in options):
            return [0] * len(cover)
        writer = {
            name: (i, o) for i, node in enumerate(cover) for o, name in enumerate(node.outputs)
        }
        edges: dict[tuple[int, int], Matrix] = {}
        for reader, node in enumerate(cover):
            for position, name in enumerate(node.inputs):
                if name is None:
                    continue
                if name not in writer:
                    self._add_feed_cost(name, position, options[reader], costs[reader])
                    continue
                source, output = writer[name]
                matrix = self._edge(name, options[source], output, options[reader], position)
                known = edges.get((source, reader))
                edges[source, reader] = matrix if known is None else known + matrix
        choices, _ = solve_pbqp(costs, edges)
        return choices

    def _edge(
        self,
        name: str,
        sources: Sequence[Candidate],
        output: int,
        readers: Sequence[Candidate],
        position: int,
    ) -> Matrix:
        tensor = self.values[name].type
        matrix = np.zeros((len(sources), len(readers)))
        for i, source in enumerate(sources):
            for j, reader in enumerate(readers):
                given = (source.memory, source.output_layouts[output])
                wanted = (reader.memory, reader.input_layouts[position])
                matrix[i, j] = self.conversion_seconds(tensor, given, wanted, reader.backend)
        return matrix

    def _add_feed_cost(
        self, name: str, position: int, readers: Sequence[Candidate], costs: Vector
    ) -> None:
        """Graph inputs arrive in host memory, plain, with a halo where that is wanted.

        Constants are prepared when binding.
        """
        if name not in self.graph.inputs:
            return
        tensor = self.values[name].type
        for j, reader in enumerate(readers):
            wanted = (reader.memory, reader.input_layouts[position])
            if wanted[0] == "host" and wanted[1].kind == "plain":
                continue
            costs[j] += self.conversion_seconds(tensor, ("host", PLAIN), wanted, reader.backend)

    def conversion_seconds(
        self,
        tensor: Type | None,
        given: tuple[str, Layout],
        wanted: tuple[str, Layout],
        backend: str,
    ) -> float:
        """Time of bringing a value from one memory and layout to another."""
        if given[0] == wanted[0] and given[1].matches(wanted[1]):
            return 0.0
        key = (tensor, given[1], wanted[1], backend)
        if key not in self._conversions:
            self._conversions[key] = self._copy_seconds(*key)
        return self._conversions[key]

    def _copy_seconds(
        self, tensor: Type | None, given: Layout, wanted: Layout, backend: str
    ) -> float:
        if not isinstance(tensor, TensorType) or not tensor.static:
            return 0.0
        nbytes = given.nbytes(tensor) + wanted.nbytes(tensor)
        return self.devices[backend].seconds("copy", Work(0, nbytes, 1), nbytes)

    def _selected(
        self,
        node: Node,
        task: Task,
        best: Candidate,
        candidates: Sequence[Candidate],
        rejected: Sequence[Rejected],
    ) -> Selected:
        others = tuple(
            Rejected(c.backend, c.kernel.scheme, c.config, None, c.cost)
            for c in candidates
            if c is not best
        )
        choice = Choice(
            best.backend,
            best.kernel.scheme,
            best.config,
            best.input_layouts,
            best.output_layouts,
            best.cost,
            (*others, *rejected),
        )
        return Selected(node, task, choice, best.kernel, best.memory)


def _misplaced(task: Task, position: int, layout: Layout) -> bool:
    """Whether a constant would be read in a layout that no step writes it in."""
    return layout != PLAIN and task.known(position) is not None


def _exchangeable(a: Candidate, b: Candidate) -> bool:
    """Whether both read and write the same memory and layouts."""
    return _signature(a) == _signature(b)


def _signature(candidate: Candidate) -> object:
    return candidate.memory, candidate.input_layouts, candidate.output_layouts


def _priced(candidate: Candidate, price: float) -> float:
    """Seconds, and what the error costs."""
    return candidate.cost.seconds + price * candidate.cost.max_error


def _cheapest_per_signature(candidates: Iterable[Candidate], price: float) -> list[Candidate]:
    """Among candidates with equal memory and layouts only the cheapest can be in a best cover."""
    best: dict[object, Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: _priced(c, price)):
        best.setdefault(_signature(candidate), candidate)
    return list(best.values())


def _preferred(
    candidates: list[Candidate],
    rejected: list[Rejected],
    preferred: Callable[[Candidate], bool],
    reason: str,
) -> list[Candidate]:
    """The preferred candidates where there are any; the others are rejected with the reason."""
    chosen = [candidate for candidate in candidates if preferred(candidate)]
    if not chosen or len(chosen) == len(candidates):
        return candidates
    rejected += [
        Rejected(c.backend, c.kernel.scheme, c.config, reason, c.cost)
        for c in candidates
        if not preferred(c)
    ]
    return chosen


def _no_candidate(node: Node, rejected: Sequence[Rejected]) -> str:
    lines = [f"nothing can run {node}:"]
    lines += [
        f"  {entry.scheme}{shown_config(entry.config)} on {entry.backend}: {entry.reason}"
        for entry in rejected
    ]
    lines.append("allow another scheme or backend, or remove the pin")
    return "\n".join(lines)
