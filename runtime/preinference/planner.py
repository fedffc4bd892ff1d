"""Planning: from a graph, concrete inputs and devices to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import mnnpy.runtime
from mnnpy.runtime.contracts import (
    PLAIN,
    Backend,
    Choice,
    Cost,
    Layout,
    Task,
)
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import STRING, TensorType, Type, UnknownType, Value
from mnnpy.runtime.ops.fused import Copy, Fused
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.memory import MemoryStep, plan_memory
from mnnpy.runtime.preinference.plan import Plan, Step
from mnnpy.runtime.preinference.selection import Constraints, Measure, Selected, Selector

HOST = "host"


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan with what was inferred on the way, and the graph that remains behind it."""

    plan: Plan
    values: Mapping[str, Value]
    rest: Graph | None


def make_plan(
    graph: Graph,
    inputs: Mapping[str, Value],
    backends: Sequence[Backend],
    constraints: Constraints | None = None,
    measure: Measure | None = None,
) -> Planned:
    """Plan a graph for concrete inputs.

    Parameters
    ----------
    inputs : every graph input with a concrete type, and its content where that sets shapes.
    backends : in order of preference; the first is the one the user asked for.
    measure : gives measured seconds of a task's candidates, or None to use the predictions.

    Raises
    ------
    ShapeError
        Where the inputs do not fit the graph.
    PlanError
        Where the constraints leave an operator without a candidate.
    """
    values = infer_values(graph, inputs)
    nodes = _plannable(graph, values)
    rest = _rest(graph, nodes, values) if len(nodes) < len(graph.nodes) else None
    wanted = _outputs(graph, nodes, rest)
    nodes = _needed(nodes, wanted, values)
    objects = frozenset(
        name for node in nodes for name in node.writes if is_object(values[name].type)
    ) | {name for name, value in inputs.items() if is_object(value.type)}
    selector = Selector(graph, values, backends, constraints or Constraints(), measure)
    by_kernel = [node for node in nodes if not objects.intersection((*node.reads, *node.writes))]
    order = _interleaved(nodes, by_kernel, selector.select(by_kernel))
    plan = _Assembly(graph, values, selector, objects).assemble(order, inputs, wanted)
    return Planned(replace(plan, complete=rest is None), values, rest)


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


def is_object(value_type: Type | None) -> bool:
    """Whether a value lives outside the arena."""
    if not isinstance(value_type, TensorType):
        return True
    return not value_type.static or value_type.dtype == STRING


def is_known(value: Value) -> bool:
    """Whether a value was evaluated while planning, so that no step computes it."""
    return value.constant


def _plannable(graph: Graph, values: Mapping[str, Value]) -> list[Node]:
    """Nodes up to and including those whose result only the data decides."""
    unknown: set[str] = set()
    nodes = []
    for node in graph.nodes:
        if unknown.intersection(node.reads):
            unknown.update(node.writes)
        else:
            nodes.append(node)
            unknown.update(name for name in node.writes if _size_unknown(values[name].type))
    return nodes


def _size_unknown(value_type: Type | None) -> bool:
    return value_type is None or (isinstance(value_type, TensorType) and not value_type.static)


def _outputs(graph: Graph, nodes: Sequence[Node], rest: Graph | None) -> list[str]:
    """Graph outputs and what the rest of the graph reads, as far as it is there by now."""
    there = {name for node in nodes for name in node.writes} | {*graph.inputs, *graph.constants}
    later = () if rest is None else tuple(rest.inputs)
    return [name for name in dict.fromkeys((*graph.outputs, *later)) if name in there]


def _needed(
    nodes: Sequence[Node], wanted: Sequence[str], values: Mapping[str, Value]
) -> list[Node]:
    """Nodes that outputs depend on, less those whose results are known."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        alive = [name for name in node.writes if name in needed and not is_known(values[name])]
        if alive:
            kept.append(node)
            needed.update(name for name in node.reads if not is_known(values[name]))
    return kept[::-1]


def _rest(graph: Graph, planned: Sequence[Node], values: Mapping[str, Value]) -> Graph:
    """What remains behind the planned nodes; what is known by now becomes its constants."""
    done = {node.name for node in planned}
    behind = [node for node in graph.nodes if node.name not in done]
    there = {name for node in planned for name in node.writes} | {*graph.inputs, *graph.constants}
    outputs = tuple(name for name in graph.outputs if name not in there)
    nodes = _needed(behind, outputs, values)
    written = {name for node in nodes for name in node.writes}
    reads = sorted({name for node in nodes for name in node.reads} - written)
    known = {name: values[name].known for name in (*reads, *outputs) if is_known(values[name])}
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
        self.values = values
        self.selector = selector
        self.objects = objects
        self.home: dict[str, tuple[str, Layout]] = {}
        self.steps: list[Step] = []
        self.specs: list[MemoryStep] = []
        self.tensors: dict[str, tuple[TensorType, Layout]] = {}
        self.copies: dict[tuple[str, str, Layout], str] = {}

    def assemble(
        self, order: Sequence[Selected | Node], inputs: Mapping[str, Value], wanted: Sequence[str]
    ) -> Plan:
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
            if name in self.objects or is_known(self.values[name]):
                outputs[name] = name
            else:
                outputs[name] = self._brought(name, HOST, PLAIN, None)
        memory, aliases = plan_memory(
            self.specs, self.tensors, [(name, HOST) for name in fed], list(outputs.values())
        )
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

    def _settle(self, name: str, memory: str, layout: Layout) -> None:
        tensor = self.values[name.split("@", 1)[0] if name not in self.values else name].tensor
        self.home[name] = (memory, layout)
        self.tensors[name] = (tensor, layout)

    def _add(self, selected: Selected) -> None:
        node, choice = selected.node, selected.choice
        reads = tuple(
            name
            if name is None or name not in self.home
            else self._brought(name, selected.memory, layout, choice.backend)
            for name, layout in zip(node.inputs, choice.input_layouts, strict=True)
        )
        node = replace(node, inputs=reads)
        kernel, task = selected.kernel, selected.task
        self.steps.append(Step(node, choice, task.outputs))
        for name, layout in zip(node.writes, choice.output_layouts, strict=True):
            self._settle(name, selected.memory, layout)
        self.specs.append(
            MemoryStep(
                tuple(name if name in self.home else None for name in reads),
                node.outputs,
                selected.memory,
                choice.cost.workspace_nbytes,
                kernel.inplace(task),
                node.op.view_offsets(task.inputs, task.outputs),
                _concat_offsets(task),
            )
        )

    def _add_object_step(self, node: Node) -> None:
        """A step on Python objects: the reference, on the host."""
        reads = tuple(
            name
            if name is None or name not in self.home
            else self._brought(name, HOST, PLAIN, None)
            for name in node.inputs
        )
        node = replace(node, inputs=reads)
        count = len(node.outputs)
        choice = Choice("numpy", "object", (), (PLAIN,) * len(reads), (PLAIN,) * count, Cost(0.0))
        types = tuple(self.values[name].type or UnknownType() for name in node.writes)
        self.steps.append(Step(node, choice, types))
        for name in node.writes:
            if name not in self.objects:
                self._settle(name, HOST, PLAIN)
        writes = tuple(None if name in self.objects else name for name in node.outputs)
        in_arena = tuple(name if name in self.home else None for name in reads)
        self.specs.append(MemoryStep(in_arena, writes, HOST))

    def _brought(self, name: str, memory: str, layout: Layout, backend: str | None) -> str:
        """The value in the wanted memory and layout; adds a copy step where it is elsewhere."""
        given = self.home[name]
        if given == (memory, layout):
            return name
        key = (name, memory, layout)
        if key not in self.copies:
            target = f"{name}@{memory}" + ("" if layout == PLAIN else f":{layout}")
            by = backend if backend is not None and memory != HOST else self._backend_of(given[0])
            seconds = self.selector.conversion_seconds(name, given, (memory, layout), by)
            choice = Choice(by, "copy", (), (given[1],), (layout,), Cost(seconds))
            tensor = self.values[name].tensor
            copy = Node(target, Copy(), (name,), (target,))
            self.steps.append(Step(copy, choice, (tensor,)))
            self.specs.append(MemoryStep((name,), (target,), memory))
            self.home[target] = (memory, layout)
            self.tensors[target] = (tensor, layout)
            self.copies[key] = target
        return self.copies[key]

    def _backend_of(self, memory: str) -> str:
        devices = self.selector.devices
        return next(name for name, device in devices.items() if device.memory == memory)


def _node(entry: Selected | Node) -> Node:
    return entry.node if isinstance(entry, Selected) else entry


def _concat_offsets(task: Task) -> tuple[int, ...] | None:
    """Element offset of each input in the output, where they lie one after another."""
    if not isinstance(task.op, Concat):
        return None
    shape = task.output().shape
    axis = task.op.axis % len(shape)
    if any(dim != 1 for dim in shape[:axis]):
        return None
    offsets, position = [], 0
    for value in task.inputs:
        assert value is not None
        offsets.append(position)
        position += value.tensor.size
    return tuple(offsets)
