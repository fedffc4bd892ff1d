"""Attention as a region: the operator, and the permutations of its operands and result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.shaping import Transpose

Permutation = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class AttentionRegion:
    """Attention whose operands and result may be permuted.

    Parameters
    ----------
    nodes : all of it, in the graph's order.
    inputs : names of q, k, v and the mask (None where there is none), before any permutation.
    permuted : permutations of q, k, v and the result; None where there is none.
    """

    op: Attention
    nodes: tuple[Node, ...]
    inputs: tuple[str | None, ...]
    permuted: tuple[Permutation, Permutation, Permutation, Permutation]


def attention_regions(graph: Graph) -> Iterator[tuple[Node, ...]]:
    """Every attention with permutations around it."""
    for node in graph.nodes:
        region = _around(graph, node)
        if region is not None and len(region.nodes) > 1:
            yield region.nodes


def read_attention(graph: Graph) -> AttentionRegion | None:
    """The attention that a region's graph is, if it is one and nothing else."""
    for node in graph.nodes:
        region = _around(graph, node)
        if region is not None:
            return region if len(region.nodes) == len(graph.nodes) else None
    return None


def _around(graph: Graph, attention: Node) -> AttentionRegion | None:
    op = attention.op
    if not isinstance(op, Attention):
        return None
    nodes = [attention]
    permuted: list[Permutation] = []
    inputs: list[str | None] = []
    for name in attention.inputs[:3]:
        before = graph.producers.get(str(name))
        permutation = _permutation(before) if _read_once(graph, str(name)) else None
        if before is not None and permutation is not None:
            nodes.append(before)
            name = before.inputs[0]
        permuted.append(permutation)
        inputs.append(name)
    (y, *_) = attention.outputs
    after = graph.consumers[y][0] if _read_once(graph, y) else None
    last = _permutation(after)
    if after is not None and last is not None:
        nodes.append(after)
    nodes.sort(key=lambda node: graph.places[node.name])
    mask = attention.inputs[3] if len(attention.inputs) > 3 else None
    q, k, v = permuted
    return AttentionRegion(op, tuple(nodes), (*inputs, mask), (q, k, v, last))


def _permutation(node: Node | None) -> Permutation:
    if node is None or not isinstance(node.op, Transpose) or node.op.perm is None:
        return None
    return node.op.axes(len(node.op.perm))


def _read_once(graph: Graph, name: str) -> bool:
    """Whether one node reads a value, once, and nobody else sees it."""
    readers = graph.consumers.get(name, ())
    return len(readers) == 1 and readers[0].inputs.count(name) == 1 and name not in graph.outputs
