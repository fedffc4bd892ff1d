"""Compute equal things once."""

from __future__ import annotations

from collections.abc import Hashable

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Rule, Subject, apply_rules
from mnnpy.runtime.graph.types import STRING, Array

_COMPARED_NBYTES = 4096


def merge_common_subexpressions(graph: Graph) -> Graph:
    """Merge nodes of one operator on the same inputs; small constants of equal content are one."""
    return apply_rules(graph, _merge_rule(_first_equals(graph)))


def _first_equals(graph: Graph) -> dict[str, str]:
    """Small constant -> the first one of equal type and content."""
    firsts: dict[Hashable, str] = {}
    return {
        name: firsts.setdefault(_content(array), name)
        for name, array in graph.constants.items()
        if array.dtype != STRING and array.nbytes <= _COMPARED_NBYTES
    }


def _content(array: Array) -> Hashable:
    return array.dtype, array.shape, array.tobytes()


def _merge_rule(first_equals: dict[str, str]) -> Rule:
    seen: dict[Hashable, Node] = {}

    def merge(subject: Subject, node: Node) -> Patch | None:
        if not node.op.deterministic:
            return None
        inputs = tuple(name and first_equals.get(name, name) for name in node.inputs)
        first = subject.current(seen.setdefault((node.op, inputs), node))
        if first is None or first.name == node.name:
            seen[node.op, inputs] = node
            return None
        if len(first.outputs) < len(node.outputs):
            return None
        pairs = list(zip(node.outputs, first.outputs, strict=False))
        if any(old is not None and new is None for old, new in pairs):
            return None
        return Patch((node,), rename={old: new for old, new in pairs if old and new})

    return merge
