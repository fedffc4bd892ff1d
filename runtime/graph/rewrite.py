"""Rewriting graphs: a rule looks at one node and returns a patch, never edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, Value

OpT = TypeVar("OpT", bound=Op)
_MAX_SWEEPS = 50


@dataclass(frozen=True, slots=True)
class Patch:
    """What a rule wants changed.

    ``add`` takes the place of the last removed node. ``rename`` sends readers of a removed value
    to another one; graph outputs keep their names.
    """

    remove: tuple[Node, ...]
    add: tuple[Node, ...] = ()
    constants: Mapping[str, Array] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)


class Subject:
    """A graph as rules see it: who writes, who reads, what is known."""

    def __init__(self, graph: Graph, seed: Mapping[str, Value] | None = None) -> None:
        self.graph = graph
        self._seed = seed
        self._values: dict[str, Value] | None = None

    def value(self, name: str) -> Value:
        """Inferred type and content; types are inferred when the first rule asks."""
        return self.values[name]

    @property
    def values(self) -> Mapping[str, Value]:
        if self._values is None:
            self._values = infer_values(self.graph, seed=self._seed)
        return self._values

    @property
    def inferred(self) -> Mapping[str, Value] | None:
        return self._values

    def constant(self, name: str | None) -> Array | None:
        """Content of a constant, or None."""
        return None if name is None else self.graph.constants.get(name)

    def producer(self, name: str | None, op_type: type[Op] | tuple[type[Op], ...]) -> Node | None:
        """The node that writes ``name``, where its operator is of that type."""
        node = None if name is None else self.graph.producers.get(name)
        return node if node is not None and isinstance(node.op, op_type) else None

    def consumers(self, name: str) -> tuple[Node, ...]:
        return self.graph.consumers.get(name, ())

    def private(self, name: str) -> bool:
        """Whether one node only reads the value and it is no graph output."""
        return name not in self.graph.outputs and len(self.consumers(name)) == 1

    def fresh(self, stem: str) -> str:
        """A value name that the graph does not use yet."""
        taken = self.graph
        name, count = stem, 0
        while name in taken.producers or name in taken.constants or name in taken.inputs:
            count += 1
            name = f"{stem}_{count}"
        return name


Rule: TypeAlias = Callable[[Subject, Node], Patch | None]
Pass: TypeAlias = Callable[[Graph], Graph]


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Apply rules over the whole graph, sweep after sweep, until none of them fires."""
    seed: Mapping[str, Value] | None = None
    for _ in range(_MAX_SWEEPS):
        subject = Subject(graph, seed)
        patches = _collect(subject, rules)
        if not patches:
            break
        seed = subject.inferred
        graph = _apply(graph, patches)
        seed = _still_valid(seed, graph)
    return graph.without_dead_code()


def _collect(subject: Subject, rules: Sequence[Rule]) -> list[Patch]:
    """Patches of one sweep that do not touch each other's nodes or values."""
    touched: set[str] = set()
    patches = []
    for node in subject.graph.nodes:
        for rule in rules:
            if node.name in touched:
                break
            patch = rule(subject, node)
            if patch is None:
                continue
            names = {n.name for n in patch.remove} | _neighbours(subject.graph, patch)
            if touched.isdisjoint(names):
                touched |= names
                patches.append(patch)
    return patches


def _neighbours(graph: Graph, patch: Patch) -> set[str]:
    """Producers that a patch reads from or renames: another patch must not replace them now."""
    reads = [name for node in (*patch.remove, *patch.add) for name in node.reads]
    sources = [*reads, *patch.rename.values()]
    return {graph.producers[name].name for name in sources if name in graph.producers}


def _apply(graph: Graph, patches: Sequence[Patch]) -> Graph:
    removed = {node.name for patch in patches for node in patch.remove}
    places = {_last(graph, patch): patch.add for patch in patches}
    renames: dict[str, str] = {}
    for patch in patches:
        renames.update(patch.rename)
    outward, inward = _split_output_renames(graph, renames, removed)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name not in removed:
            nodes.append(_renamed(node, inward, outward))
        nodes.extend(_renamed(new, inward, outward) for new in places.get(node.name, ()))
    constants = dict(graph.constants)
    for patch in patches:
        constants.update(patch.constants)
    for old, new in outward.items():
        if old in constants:
            constants[new] = constants.pop(old)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _last(graph: Graph, patch: Patch) -> str:
    if len(patch.remove) == 1:
        return patch.remove[0].name
    names = {node.name for node in patch.remove}
    return next(node.name for node in reversed(graph.nodes) if node.name in names)


def _split_output_renames(
    graph: Graph, renames: Mapping[str, str], removed: set[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Renames of graph outputs are turned round: the source takes the output's name.

    Returns (source -> output name, other value -> final source name).
    """
    outward: dict[str, str] = {}
    resolved: dict[str, str] = {}
    for old in renames:
        new = renames[old]
        while new in renames:
            new = renames[new]
        resolved[old] = new
    for old, new in resolved.items():
        if old in graph.outputs:
            outward[new] = old
    inward = {old: outward.get(new, new) for old, new in resolved.items()}
    return outward, {old: new for old, new in inward.items() if old != new}


def _renamed(node: Node, inward: Mapping[str, str], outward: Mapping[str, str]) -> Node:
    if not any(name in inward or name in outward for name in (*node.inputs, *node.outputs)):
        return node

    def read(name: str | None) -> str | None:
        return None if name is None else outward.get(inward.get(name, name), inward.get(name, name))

    outputs = tuple(None if name is None else outward.get(name, name) for name in node.outputs)
    return replace(node, inputs=tuple(map(read, node.inputs)), outputs=outputs)


def _still_valid(seed: Mapping[str, Value] | None, graph: Graph) -> Mapping[str, Value] | None:
    if seed is None:
        return None
    return {name: seed[name] for name in graph.producers if name in seed}


def can_rename(graph: Graph, old: str, new: str) -> bool:
    """Whether readers of ``old`` may read ``new`` instead without losing an interface name.

    A graph output can take over another value's producer, but not a graph input's or another
    graph output's name, nor a constant's where that would leave it unnamed.
    """
    if old not in graph.outputs:
        return True
    return new not in graph.outputs and new not in graph.inputs and new not in graph.constants
