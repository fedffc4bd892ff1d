"""Rewriting graphs: a rule looks at one node and returns a patch, never edits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from mnnpy.runtime.errors import MnnpyError, ShapeError
from mnnpy.runtime.graph.graph import Graph, Node, in_topological_order
from mnnpy.runtime.graph.inference import infer_node, infer_values, name_unknown_dims
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, TensorType, Value

_MOST_PATCHES_PER_NODE = 100
"""Rules that undo each other would go on for ever."""


@dataclass(frozen=True, slots=True)
class Patch:
    """What a rule wants changed.

    Parameters
    ----------
    remove : nodes to take out; what others read of their outputs must come from somewhere.
    add : nodes to put in, at the place of the last removed one.
    constants : new constants; one may have the name of a removed node's output.
    rename : value -> value that its readers read from now on. Graph outputs keep their names, so
        that there the other value takes over the output's name.
    """

    remove: tuple[Node, ...]
    add: tuple[Node, ...] = ()
    constants: Mapping[str, Array] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)


class _Links:
    """Nodes in their places, who writes and who reads what, kept up to date."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes: dict[str, Node] = {}
        self.places: dict[str, int] = {}
        self.producers: dict[str, Node] = {}
        self.readers: dict[str, dict[str, None]] = {}
        for place, node in enumerate(nodes):
            self.insert(node, place)

    def insert(self, node: Node, place: int) -> None:
        self.nodes[node.name] = node
        self.places[node.name] = place
        for name in node.outputs:
            self.producers[name] = node
        for name in node.reads:
            self.readers.setdefault(name, {})[node.name] = None

    def take_out(self, node: Node) -> int:
        """Remove a node; the place where it stood."""
        del self.nodes[node.name]
        for name in node.outputs:
            del self.producers[name]
        for name in dict.fromkeys(node.reads):
            del self.readers[name][node.name]
        return self.places.pop(node.name)

    def replace(self, node: Node, new: Node) -> None:
        self.insert(new, self.take_out(node))

    def in_order(self) -> list[Node]:
        return sorted(self.nodes.values(), key=lambda node: self.places[node.name])


class Subject:
    """A graph while rules rewrite it: who writes, who reads, what is known."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        self.outputs = frozenset(graph.outputs)
        self._values: dict[str, Value] | None = None
        self._counts: dict[str, int] = {}

    @cached_property
    def op_types(self) -> set[type[Op]]:
        """Operators that the graph has, or has had."""
        return {type(node.op) for node in self.graph.nodes}

    @cached_property
    def _links(self) -> _Links:
        return _Links(self.graph.nodes)

    def current(self, node: Node) -> Node | None:
        """The node of that name as it is now; None where it is gone."""
        return self._links.nodes.get(node.name) if "_links" in self.__dict__ else node

    def value(self, name: str) -> Value:
        """Type and content as far as inferred; all are inferred when the first rule asks."""
        if self._values is None:
            self._values = infer_values(self.result())
        return self._values[name]

    def tensor(self, name: str | None) -> TensorType | None:
        """The type, where it is known and a tensor's."""
        inferred = None if name is None else self.value(name).type
        return inferred if isinstance(inferred, TensorType) else None

    def constant(self, name: str | None) -> Array | None:
        """Content of a constant, or None."""
        return None if name is None else self.constants.get(name)

    def producer(self, name: str | None, op_type: type[Op] | tuple[type[Op], ...]) -> Node | None:
        """The node that writes ``name``, where its operator is of that type."""
        node = None if name is None else self._links.producers.get(name)
        return node if node is not None and isinstance(node.op, op_type) else None

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that read the value, each once."""
        return tuple(self._links.nodes[reader] for reader in self._links.readers.get(name, ()))

    def private(self, name: str) -> bool:
        """Whether one node only reads the value and it is no graph output."""
        return name not in self.outputs and len(self._links.readers.get(name, ())) == 1

    def unread(self, name: str) -> bool:
        """Whether no node reads the value and it is no graph output."""
        return name not in self.outputs and not self._links.readers.get(name)

    def fresh(self, stem: str) -> str:
        """A name that no value and no node has yet."""
        links = self._links
        taken = (links.nodes, links.producers, self.constants, self.graph.inputs)
        name = stem
        while any(name in names for names in taken):
            self._counts[stem] = self._counts.get(stem, 0) + 1
            name = f"{stem}_{self._counts[stem]}"
        return name

    def can_rename(self, old: str, new: str) -> bool:
        """Whether readers of ``old`` may read ``new`` without an interface losing its name.

        A value cannot take over a graph output's name where it is an input or output itself.
        """
        return old not in self.outputs or (new not in self.outputs and new not in self.graph.inputs)

    def apply(self, patch: Patch) -> list[Node] | None:
        """Change the graph; the nodes worth another look, None where names forbid the change."""
        if not all(self.can_rename(old, new) for old, new in patch.rename.items()):
            return None
        links = self._links
        place = max(links.places[node.name] for node in patch.remove)
        touched = [name for node in patch.remove for name in (*node.reads, *node.outputs)]
        for node in patch.remove:
            links.take_out(node)
        for name, array in patch.constants.items():
            self._define(name, array)
        for node in patch.add:
            self.op_types.add(type(node.op))
            links.insert(node, place)
            self._infer(node)
        for old, new in patch.rename.items():
            self._rename(old, new)
        self._require_complete(patch)
        around = self._sweep_dead(touched)
        changed = dict.fromkeys((*touched, *patch.rename.values()))
        readers = [reader for name in changed for reader in self.consumers(name)]
        return [*patch.add, *readers, *around]

    def result(self) -> Graph:
        """The graph as it stands."""
        if "_links" not in self.__dict__:
            return self.graph
        available = {*self.graph.inputs, *self.constants}
        nodes = in_topological_order(self._links.in_order(), available)
        return replace(self.graph, nodes=nodes, constants=self.constants)

    def _define(self, name: str, array: Array) -> None:
        self.constants[name] = array
        if self._values is not None:
            self._values[name] = Value(TensorType(array.dtype, array.shape), array)

    def _infer(self, node: Node) -> None:
        if self._values is None:
            return
        known = self._values
        results = infer_node(node, [None if n is None else known[n] for n in node.inputs])
        for name, result in zip(node.outputs, results, strict=False):
            if name not in known or known[name].type is None:
                known[name] = name_unknown_dims(name, result)

    def _rename(self, old: str, new: str) -> None:
        if old in self.outputs and new in self.constants:
            self._define(old, self.constants[new])
            return
        if old in self.outputs:
            old, new = new, old
            writer = self._links.producers[old]
            outputs = tuple(new if name == old else name for name in writer.outputs)
            self._links.replace(writer, replace(writer, outputs=outputs))
            if self._values is not None:
                self._values[new] = self._values[old]
        for reader in self.consumers(old):
            inputs = tuple(new if name == old else name for name in reader.inputs)
            self._links.replace(reader, replace(reader, inputs=inputs))

    def _require_complete(self, patch: Patch) -> None:
        """A rule that drops a value that is still needed is wrong: say which."""
        for node in patch.remove:
            for name in node.outputs:
                needed = name in self.outputs or self._links.readers.get(name)
                if needed and name not in self._links.producers and name not in self.constants:
                    raise RuntimeError(f"a patch removes {node}, but {name!r} is still read")

    def _sweep_dead(self, names: Iterable[str]) -> list[Node]:
        """Drop nodes that only removed nodes read; the producers that stay."""
        stay: list[Node] = []
        todo = list(names)
        while todo:
            node = self._links.producers.get(todo.pop())
            if node is None:
                continue
            if all(map(self.unread, node.outputs)):
                self._links.take_out(node)
                todo.extend(node.reads)
            else:
                stay.append(node)
        return stay


Rule: TypeAlias = Callable[[Subject, Node], Patch | None]
Pass: TypeAlias = Callable[[Graph], Graph]


def apply_rules(graph: Graph, *rules: Rule) -> Graph:
    """Apply rules until none of them fires; the same graph where none does.

    Patches take effect at once. What a patch changes is looked at again, and then everything once
    more, so that rules may look as far around a node as they like.

    Raises
    ------
    RuntimeError
        Where rules undo each other, or one drops a value that is still read.
    ShapeError
        Where inputs break an operator's rule; names the node.
    """
    subject = Subject(graph)
    patience = _MOST_PATCHES_PER_NODE * (len(graph.nodes) + 1)
    todo = deque(graph.nodes)
    fired = fired_ever = False
    while todo:
        node = subject.current(todo.popleft())
        changed = None if node is None else _first_patch(subject, node, rules)
        if changed is not None:
            fired = fired_ever = True
            todo.extendleft(changed)
            patience -= 1
            if patience < 0:
                raise RuntimeError(f"rules undo each other around {node}: {_names(rules)}")
        if not todo and fired:
            todo.extend(subject.result().nodes)
            fired = False
    return subject.result().without_dead_code() if fired_ever else graph


def _first_patch(subject: Subject, node: Node, rules: Iterable[Rule]) -> list[Node] | None:
    for rule in rules:
        patch = _patch(rule, subject, node)
        changed = None if patch is None else subject.apply(patch)
        if changed is not None:
            return changed
    return None


def _patch(rule: Rule, subject: Subject, node: Node) -> Patch | None:
    """What a rule makes of a node; where it cannot read it, the node is named as broken.

    Rules take for granted what inference checks, which it cannot where an input's type is unknown.
    """
    try:
        return rule(subject, node)
    except MnnpyError:
        raise
    except Exception as error:
        raise ShapeError(
            f"{node}: inputs do not fit the operator, as {_names((rule,))} found: "
            f"{type(error).__name__}: {error}"
        ) from error


def _names(rules: Iterable[Rule]) -> str:
    return ", ".join(getattr(rule, "__name__", repr(rule)) for rule in rules)
