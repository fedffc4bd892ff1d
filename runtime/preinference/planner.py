"""Planning: from a graph, concrete inputs and devices to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

import mnnpy.runtime
from mnnpy.runtime.contracts import Backend, Choice, Cost, Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import STRING, TensorType, Type, UnknownType, Value
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.ops.fused import Copy, Fused
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.memory import MemoryStep, plan_memory
from mnnpy.runtime.preinference.plan import Plan, Step
from mnnpy.runtime.preinference.selection import Measure, Selected, Selector

HOST = "host"

_WORTH_BORROWING = 1 << 16
"""Bytes that are copied in the time that it takes to find out where an array lies."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan with what is known of its values, copies among them, and the graph behind it.

    ``then`` is the same of ``plan.then``.
    """

    plan: Plan
    values: Mapping[str, Value]
    rest: Graph | None
    then: Planned | None = None

    @property
    def stages(self) -> tuple[Planned, ...]:
        """This, and what follows it."""
        return (self, *(self.then.stages if self.then else ()))


def make_plan(
    graph: Graph,
    inputs: Mapping[str, Value],
    backends: Sequence[Backend],
    constraints: Constraints | None = None,
    measure: Measure | None = None,
    threads: int | None = None,
    lanes: int = 1,
) -> Planned:
    """Plan a graph for concrete inputs.

    Parameters
    ----------
    inputs : every graph input with a concrete type, and its content where that sets shapes.
    backends : in order of preference; the first is the one the user asked for.
    measure : gives measured seconds of a task's candidates, or None to use the predictions.
    threads : most threads that a run uses; None leaves it to the devices.
    lanes : runs of the plan side by side, which share the caches.

    Raises
    ------
    ShapeError
        Where the inputs do not fit the graph.
    PlanError
        Where the constraints leave an operator without a candidate.
    """
    values = infer_values(graph, inputs)
    nodes = _plannable(graph, values)
    rest = rest_of(graph, nodes, values) if len(nodes) < len(graph.nodes) else None
    wanted = _outputs(graph, nodes, rest)
    nodes = _needed(nodes, wanted, values)
    objects = frozenset(
        name for node in nodes for name in node.outputs if _is_object(values[name].type)
    ) | {name for name, value in inputs.items() if _is_object(value.type)}
    allowed = constraints or Constraints()
    selector = Selector(graph, values, backends, allowed, measure, threads, lanes)
    by_kernel = [node for node in nodes if not objects.intersection((*node.reads, *node.outputs))]
    order = _interleaved(nodes, by_kernel, selector.select(by_kernel))
    assembly = _Assembly(graph, values, selector, objects)
    plan = assembly.assemble(order, inputs, wanted)
    return Planned(replace(plan, complete=rest is None), assembly.values, rest)


def _interleaved(
    nodes: Sequence[Node], by_kernel: Sequence[Node], selected: Sequence[Selected]
) -> list[Selected | Node]:
    """Chosen kernels and the nodes without one, in topological order.

    A region stands where its last node stood: only there everything that it reads is written.
    """
    covered = {node.name for node in by_kernel}
    at = {_last_part(entry.node).name: entry for entry in selected}
    return [at.get(n.name) or n for n in nodes if n.name in at or n.name not in covered]


def _last_part(node: Node) -> Node:
    return node.op.graph.nodes[-1] if isinstance(node.op, Fused) else node


def _is_object(value_type: Type | None) -> bool:
    """Whether a value lives outside the arena."""
    if not isinstance(value_type, TensorType):
        return True
    return not value_type.static or value_type.dtype == STRING


def _plannable(graph: Graph, values: Mapping[str, Value]) -> list[Node]:
    """Nodes up to and including those whose result only the data decides."""
    unknown: set[str] = set()
    nodes = []
    for node in graph.nodes:
        if unknown.intersection(node.reads):
            unknown.update(node.outputs)
        else:
            nodes.append(node)
            unknown.update(name for name in node.outputs if _size_unknown(values[name].type))
    return nodes


def _size_unknown(value_type: Type | None) -> bool:
    return value_type is None or (isinstance(value_type, TensorType) and not value_type.static)


def _outputs(graph: Graph, nodes: Sequence[Node], rest: Graph | None) -> list[str]:
    """Graph outputs and what the rest of the graph reads, as far as it is there by now."""
    there = {name for node in nodes for name in node.outputs} | {*graph.inputs, *graph.constants}
    later = () if rest is None else tuple(rest.inputs)
    return [name for name in dict.fromkeys((*graph.outputs, *later)) if name in there]


def _needed(
    nodes: Sequence[Node], wanted: Sequence[str], values: Mapping[str, Value]
) -> list[Node]:
    """Nodes that outputs depend on, less those whose results were evaluated while planning."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if any(name in needed and not values[name].constant for name in node.outputs):
            kept.append(node)
            needed.update(name for name in node.reads if not values[name].constant)
    return kept[::-1]


def rest_of(graph: Graph, planned: Sequence[Node], values: Mapping[str, Value]) -> Graph:
    """What remains behind the planned nodes; what is known by now becomes its constants."""
    done = {node.name for node in planned}
    behind = [node for node in graph.nodes if node.name not in done]
    there = {name for node in planned for name in node.outputs} | {*graph.inputs, *graph.constants}
    outputs = tuple(name for name in graph.outputs if name not in there)
    nodes = _needed(behind, outputs, values)
    written = {name for node in nodes for name in node.outputs}
    reads = sorted({name for node in nodes for name in node.reads} - written)
    known = {name: values[name].known for name in (*reads, *outputs) if values[name].constant}
    inputs = {name: values[name].type or UnknownType() for name in reads if name not in known}
    return Graph(tuple(nodes), inputs, outputs, known, graph.name)


class _Assembly:
    """Puts chosen kernels, copies and memory together."""

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Value],
        selector: Selector,
        objects: frozenset[str],
    ) -> None:
        self.graph = graph
        self.values = dict(values)
        self.selector = selector
        self.objects = objects
        self.home: dict[str, tuple[str, Layout]] = {}
        self.steps: list[Step] = []
        self.specs: list[MemoryStep] = []
        self.borrowing: list[bool] = []
        self.tensors: dict[str, tuple[TensorType, Layout]] = {}
        self.copies: dict[tuple[str, str, Layout], str] = {}
        self.halos: dict[str, int] = {}

    def assemble(
        self, order: Sequence[Selected | Node], inputs: Mapping[str, Value], wanted: Sequence[str]
    ) -> Plan:
        self._collect_halos(order)
        used = {name for entry in order for name in _node(entry).reads} | set(wanted)
        fed = [name for name in self.graph.inputs if name in used and name not in self.objects]
        for name in fed:
            self._settle(name, HOST, PLAIN)
        for entry in order:
            if isinstance(entry, Selected):
                self._add(entry)
            else:
                self._add_object_step(entry)
        outputs = {}
        for name in wanted:
            if name in self.objects or self.values[name].constant:
                outputs[name] = name
            else:
                outputs[name] = self._brought(name, HOST, PLAIN)
        borrowed = self._borrowed(fed, list(outputs.values()))
        held = [name for name in outputs.values() if name not in borrowed]
        memory, aliases = plan_memory(
            [_without(spec, borrowed) for spec in self.specs],
            self.tensors,
            [(name, HOST) for name in fed if name not in borrowed],
            held,
        )
        memory = replace(memory, borrowed=borrowed)
        steps = tuple(
            replace(step, aliases=pairs) for step, pairs in zip(self.steps, aliases, strict=True)
        )
        return Plan(
            self.graph.fingerprint,
            {name: t for name, value in inputs.items() if (t := value.type) is not None},
            outputs,
            steps,
            memory,
            self.objects,
            versions={"mnnpy": mnnpy.runtime.VERSION, "numpy": np.__version__},
        )

    def _borrowed(self, fed: Sequence[str], outputs: Sequence[str]) -> frozenset[str]:
        """Large inputs and outputs that nothing touches but kernels that can borrow."""
        held = (name for name in (*fed, *outputs) if name in self.home)
        ends = {name for name in held if self.values[name].tensor.nbytes >= _WORTH_BORROWING}
        ends -= {name for name in outputs if name in fed or outputs.count(name) > 1}
        for step, borrows in zip(self.steps, self.borrowing, strict=True):
            if not borrows:
                ends.difference_update(step.node.reads, step.node.outputs)
        return frozenset(ends)

    def _collect_halos(self, order: Sequence[Selected | Node]) -> None:
        """The widest halo that readers of each blocked value need: its producer writes that."""
        for entry in order:
            if not isinstance(entry, Selected):
                continue
            for name, layout in zip(entry.node.inputs, entry.choice.input_layouts, strict=True):
                if name is not None and layout.kind == "blocked":
                    self.halos[name] = max(self.halos.get(name, 0), layout.halo)
        joined = [entry for entry in order if isinstance(entry, Selected)]
        joined = [entry for entry in joined if _is_blocked_concat(entry)]
        for entry in (*reversed(joined), *joined):
            self._share_halo(entry.node)

    def _share_halo(self, concat: Node) -> None:
        """Pieces can lie inside the whole only where all have one halo."""
        names = (*concat.reads, *concat.outputs)
        widest = max(self.halos.get(name, 0) for name in names)
        self.halos.update((name, widest) for name in names)

    def _with_halo(self, name: str, layout: Layout) -> Layout:
        if layout.kind != "blocked":
            return layout
        return replace(layout, halo=self.halos.get(name, 0))

    def _settle(self, name: str, memory: str, layout: Layout) -> None:
        self.home[name] = (memory, layout)
        self.tensors[name] = (self.values[name].tensor, layout)

    def _add(self, selected: Selected) -> None:
        node, choice = selected.node, selected.choice
        reads = tuple(
            name
            if name is None or name not in self.home
            else self._brought(name, selected.memory, layout)
            for name, layout in zip(node.inputs, choice.input_layouts, strict=True)
        )
        for name, layout in zip(node.outputs, choice.output_layouts, strict=True):
            self._settle(name, selected.memory, self._with_halo(name, layout))
        choice = replace(
            choice,
            input_layouts=tuple(
                self.home[name][1] if name in self.home else layout
                for name, layout in zip(reads, choice.input_layouts, strict=True)
            ),
            output_layouts=tuple(self.home[name][1] for name in node.outputs),
        )
        node = replace(node, inputs=reads)
        kernel, task = selected.kernel, selected.task
        self.steps.append(Step(node, choice, task.outputs))
        self.specs.append(
            MemoryStep(
                tuple(name if name in self.home else None for name in reads),
                node.outputs,
                selected.memory,
                choice.cost.workspace_nbytes,
                kernel.inplace(task),
                node.op.view_offsets(task.inputs, task.outputs),
                _concat_offsets(task, choice.output_layouts[0]),
            )
        )
        self.borrowing.append(selected.memory == HOST and kernel.borrows)

    def _add_object_step(self, node: Node) -> None:
        """A step on Python objects: the reference, on the host."""
        reads = tuple(
            name if name is None or name not in self.home else self._brought(name, HOST, PLAIN)
            for name in node.inputs
        )
        node = replace(node, inputs=reads)
        count = len(node.outputs)
        choice = Choice("numpy", "object", (), (PLAIN,) * len(reads), (PLAIN,) * count, Cost(0.0))
        types = tuple(self.values[name].type or UnknownType() for name in node.outputs)
        self.steps.append(Step(node, choice, types))
        for name in node.outputs:
            if name not in self.objects:
                self._settle(name, HOST, PLAIN)
        writes = tuple(None if name in self.objects else name for name in node.outputs)
        in_arena = tuple(name if name in self.home else None for name in reads)
        self.specs.append(MemoryStep(in_arena, writes, HOST))
        self.borrowing.append(False)

    def _brought(self, name: str, memory: str, layout: Layout) -> str:
        """The value in the wanted memory and layout; adds copy steps where it is elsewhere.

        Between memories values travel plain; layouts change within one memory.
        """
        layout = self._with_halo(name, layout)
        if self.home[name][0] != memory:
            name = self._copied(name, self.home[name][0], PLAIN)
            name = self._copied(name, memory, PLAIN)
        return self._copied(name, memory, layout)

    def _copied(self, name: str, memory: str, layout: Layout) -> str:
        """The value itself where it lies there, else the output of one copy step."""
        given = self.home[name]
        if given == (memory, layout):
            return name
        key = (name, memory, layout)
        if key not in self.copies:
            target = self._fresh(f"{name}@{memory}" + ("" if layout == PLAIN else f":{layout}"))
            by = self._copier(given[0], memory)
            kept = self.values[name].type
            seconds = self.selector.conversion_seconds(kept, given, (memory, layout), by)
            choice = Choice(by, "copy", (), (given[1],), (layout,), Cost(seconds))
            self.values[target] = Value(kept)
            copy = Node(target, Copy(), (name,), (target,))
            self.steps.append(Step(copy, choice, (self.values[name].tensor,)))
            self.specs.append(MemoryStep((name,), (target,), memory))
            self.borrowing.append(given[0] == memory == HOST and self._copy_borrows(by))
            self._settle(target, memory, layout)
            self.copies[key] = target
        return self.copies[key]

    def _fresh(self, name: str) -> str:
        """The name, or one like it that the graph has no value of."""
        while name in self.values:
            name += "'"
        return name

    def _copier(self, source: str, target: str) -> str:
        """The backend that copies: between memories the device's, else one that knows layouts."""
        memory = source if target == HOST else target
        backends = self.selector.backends
        there = [b for b in backends if self.selector.devices[b.name].memory == memory]
        able = (b for b in there if any(k.scheme == "copy" for k in b.kernels(Copy())))
        return (next(able, there[0]) if source == target else there[0]).name

    def _copy_borrows(self, backend: str) -> bool:
        (copier,) = (b for b in self.selector.backends if b.name == backend)
        return any(kernel.borrows for kernel in copier.kernels(Copy()))


def _node(entry: Selected | Node) -> Node:
    return entry.node if isinstance(entry, Selected) else entry


def _without(spec: MemoryStep, borrowed: frozenset[str]) -> MemoryStep:
    """What memory planning sees of a step where some values need no memory."""
    reads = tuple(None if name in borrowed else name for name in spec.reads)
    writes = tuple(None if name in borrowed else name for name in spec.writes)
    return replace(spec, reads=reads, writes=writes)


def _concat_offsets(task: Task, layout: Layout) -> tuple[int, ...] | None:
    """Byte offset of each input in the output, where they lie one after another."""
    if not isinstance(task.op, Concat):
        return None
    shape = task.output().shape
    if any(dim != 1 for dim in shape[: task.op.axis % len(shape)]):
        return None
    sizes = [layout.nbytes(task.tensor(index)) for index in range(len(task.inputs))]
    return tuple(accumulate(sizes, initial=0))[:-1]


def _is_blocked_concat(selected: Selected) -> bool:
    return isinstance(selected.node.op, Concat) and (
        selected.choice.output_layouts[0].kind == "blocked"
    )
