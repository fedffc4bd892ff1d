"""Drop what no output depends on."""

from __future__ import annotations

from dataclasses import replace

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.normalization import LayerNormalization
from mnnpy.runtime.ops.pooling import MaxPool

_OPTIONAL_OUTPUTS = (Attention, LayerNormalization, MaxPool)
"""Operators with outputs after the first that may be left out."""


def eliminate_dead_code(graph: Graph) -> Graph:
    """Drop nodes and constants that nothing reads, and optional outputs at the end of a node."""
    graph = graph.without_dead_code()
    nodes = tuple(_trimmed(graph, node) for node in graph.nodes)
    changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
    return replace(graph, nodes=nodes) if changed else graph


def _trimmed(graph: Graph, node: Node) -> Node:
    if not isinstance(node.op, _OPTIONAL_OUTPUTS):
        return node
    outputs = node.outputs
    while len(outputs) > 1 and not _read(graph, outputs[-1]):
        outputs = outputs[:-1]
    return node if outputs == node.outputs else replace(node, outputs=outputs)


def _read(graph: Graph, name: str) -> bool:
    return name in graph.outputs or name in graph.consumers
