"""Evaluating a graph by its operators' references: the oracle."""

from __future__ import annotations

from collections.abc import Mapping

from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Array, ArrayModule


def evaluate(
    graph: Graph, xp: ArrayModule, feeds: Mapping[str, Array], keep: bool = False
) -> dict[str, Array]:
    """Run every node's reference with the array module ``xp``.

    Parameters
    ----------
    feeds : content of every graph input.
    keep : return every intermediate value, not only the outputs.
    """
    values: dict[str, Array] = dict(feeds)
    for name, array in graph.constants.items():
        values[name] = array if array.dtype == object else xp.asarray(array)
    for node in graph.nodes:
        results = node.op.reference(xp, *(None if n is None else values[n] for n in node.inputs))
        values.update(zip(node.outputs, results, strict=False))
    return values if keep else {name: values[name] for name in graph.outputs}
