"""Nodes and graphs: immutable, in topological order."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, Type, dtype_name

_HASHED_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an operator.

    Parameters
    ----------
    inputs : value names, None where an optional one is absent.
    outputs : value names in the operator's order; those at the end may be left out, and one in
        between that nobody wants has a name that nobody reads.
    """

    name: str
    op: Op
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in self.inputs if name is not None)

    def __str__(self) -> str:
        return f"{self.op.kind} node {self.name!r}"


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A network: nodes in topological order, typed inputs, output names and constants.

    Parameters
    ----------
    inputs : name -> type; dimensions may be symbolic.
    constants : name -> NumPy array, never written to.
    metadata : free text of the producer, kept in the model file.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, Type]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Equal nodes, types, outputs and constants; graph names and metadata do not count."""
        if not isinstance(other, Graph):
            return NotImplemented
        return self is other or (
            self.fingerprint == other.fingerprint
            and all(map(_same_content, self._contents(), other._contents()))
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self.nodes)} nodes, {self.fingerprint[:16]})"

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """Value name -> the node that writes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Node name -> its place in topological order."""
        return {node.name: index for index, node in enumerate(self.nodes)}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Value name -> the nodes that read it, each once, in order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                readers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in readers.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of structure, types and small constants: what a plan depends on.

        Large constants (weights) count by type only, so that the fingerprint costs milliseconds.
        """
        digest = hashlib.sha256()

        def add(text: str) -> None:
            digest.update(text.encode("utf-8", "surrogatepass"))

        for name, value_type in self.inputs.items():
            add(f"in {name!r} {value_type}\n")
        for name, array in self.constants.items():
            add(f"const {name!r} {dtype_name(array.dtype)}{array.shape}\n")
            if array.nbytes <= _HASHED_NBYTES:
                if array.dtype == object:
                    add(repr(array.tolist()))
                else:
                    digest.update(array.tobytes())
        for node in self.nodes:
            add(f"{node.name!r} {node.op!r} {node.inputs} {node.outputs}\n")
        add(f"out {self.outputs}")
        return digest.hexdigest()

    def _contents(self) -> Iterator[Array]:
        """Constants of this graph and of the graphs in its nodes' attributes."""
        yield from self.constants.values()
        for node in self.nodes:
            for attribute in fields(node.op):
                value = getattr(node.op, attribute.name)
                if isinstance(value, Graph):
                    yield from value._contents()

    def extract(self, nodes: Sequence[Node], values: Mapping[str, Type]) -> Graph:
        """Subgraph of ``nodes`` (in this graph's order) with everything they read as its inputs.

        Its outputs are what other nodes or the graph's outputs need.
        """
        inside = {node.name for node in nodes}
        written = {name for node in nodes for name in node.outputs}
        reads = dict.fromkeys(name for node in nodes for name in node.reads if name not in written)
        outputs = tuple(
            name
            for node in nodes
            for name in node.outputs
            if name in self.outputs
            or any(reader.name not in inside for reader in self.consumers.get(name, ()))
        )
        return Graph(tuple(nodes), {name: values[name] for name in reads}, outputs)

    def without_dead_code(self) -> Graph:
        """Drop nodes and constants that no output depends on."""
        needed = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.reads)
        constants = {name: array for name, array in self.constants.items() if name in needed}
        if len(kept) == len(self.nodes) and len(constants) == len(self.constants):
            return self
        return replace(self, nodes=tuple(reversed(kept)), constants=constants)

    def validate(self) -> Graph:
        """Return self; raise ``InvalidModelError`` where a name is unknown or defined twice."""
        defined = set(self.inputs)
        for name in self.constants:
            _define(name, defined, "a constant")
        for node in self.nodes:
            for name in node.reads:
                if name not in defined:
                    raise InvalidModelError(
                        f"{node} reads {name!r}, which no input, constant or earlier node provides"
                    )
            for name in node.outputs:
                _define(name, defined, str(node))
        counts = Counter(node.name for node in self.nodes)
        if len(counts) != len(self.nodes):
            twice = sorted(name for name, count in counts.items() if count > 1)
            raise InvalidModelError(f"node names used more than once: {', '.join(twice[:5])}")
        for name in self.outputs:
            if name not in defined:
                raise InvalidModelError(f"graph output {name!r} is written by no node")
        return self


def _same_content(a: Array, b: Array) -> bool:
    """Whether two constants of equal type, the small ones of equal content too, are equal."""
    if a is b:
        return True
    if a.dtype == object:
        return bool(a.tolist() == b.tolist())
    return a.nbytes <= _HASHED_NBYTES or bool(a.tobytes() == b.tobytes())


def _define(name: str, defined: set[str], by: str) -> None:
    if name in defined:
        raise InvalidModelError(f"value {name!r} is defined twice, the second time by {by}")
    defined.add(name)


def in_topological_order(nodes: Iterable[Node], available: Iterable[str]) -> tuple[Node, ...]:
    """Sort nodes so that each reads only what stands before it; the given order where it is valid.

    Raises
    ------
    InvalidModelError
        Where nodes wait on each other (a cycle, the nodes named) or read a name nobody writes.
    """
    todo = list(nodes)
    ready_names = set(available)
    written_by = {name: node for node in todo for name in node.outputs}
    readers: dict[str, list[int]] = {}
    ordered: list[Node] = []
    ready: list[int] = []
    counts: list[int] = []
    for index, node in enumerate(todo):
        missing = {name for name in node.reads if name not in ready_names}
        unknown = sorted(name for name in missing if name not in written_by)
        if unknown:
            raise InvalidModelError(
                f"{node} reads {unknown[0]!r}, which no input, initialiser or node provides"
            )
        counts.append(len(missing))
        for name in missing:
            readers.setdefault(name, []).append(index)
        if not missing:
            ready.append(index)
    heapq.heapify(ready)
    while ready:
        index = heapq.heappop(ready)
        ordered.append(todo[index])
        for name in set(todo[index].outputs):
            for reader in readers.get(name, ()):
                counts[reader] -= 1
                if counts[reader] == 0:
                    heapq.heappush(ready, reader)
    if len(ordered) < len(todo):
        stuck = [todo[i] for i, count in enumerate(counts) if count > 0]
        raise InvalidModelError(f"the graph has a cycle through {_cycle(stuck, written_by)}")
    return tuple(ordered)


def _cycle(stuck: Sequence[Node], written_by: Mapping[str, Node]) -> str:
    names = {node.name for node in stuck}
    path: list[str] = []
    node = stuck[0]
    while node.name not in path:
        path.append(node.name)
        node = next(
            written_by[name]
            for name in node.reads
            if name in written_by and written_by[name].name in names
        )
    cycle = path[path.index(node.name) :]
    shown = [repr(name) for name in reversed(cycle[-8:])]
    return " -> ".join(shown) + (" -> ..." if len(cycle) > 8 else f" -> {shown[0]}")
