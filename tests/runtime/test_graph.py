"""Graphs: validation, order, dead code, fingerprints, subgraphs."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.graph import Graph, Node, in_topological_order
from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.ops.activation import LeakyRelu, Relu
from mnnpy.runtime.ops.elementwise import Add

X = {"x": TensorType(FLOAT32, (2, 3))}


def relu(name: str, source: str, target: str) -> Node:
    return Node(name, Relu(), (source,), (target,))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (
            Graph((relu("a", "nowhere", "y"),), X, ("y",)),
            "Relu node 'a' reads 'nowhere', which no input, constant or earlier node provides",
        ),
        (
            Graph((relu("a", "v", "y"), relu("b", "x", "v")), X, ("y",)),
            "Relu node 'a' reads 'v'",
        ),
        (
            Graph((relu("a", "x", "y"), relu("b", "x", "y")), X, ("y",)),
            "value 'y' is defined twice, the second time by Relu node 'b'",
        ),
        (
            Graph((relu("a", "x", "x"),), X, ("x",)),
            "value 'x' is defined twice",
        ),
        (
            Graph((), X, ("x",), {"x": np.zeros(1)}),
            "value 'x' is defined twice, the second time by a constant",
        ),
        (
            Graph((relu("a", "x", "v"), relu("a", "v", "y")), X, ("y",)),
            "node names used more than once: a",
        ),
        (Graph((relu("a", "x", "v"),), X, ("y",)), "graph output 'y' is written by no node"),
    ],
)
def test_validate_refuses(graph: Graph, said: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        graph.validate()
    assert said in str(caught.value)


def test_an_input_may_be_an_output() -> None:
    assert Graph((), X, ("x",)).validate().outputs == ("x",)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([relu("a", "a", "a")], "'a' -> 'a'"),
        ([relu("a", "v", "w"), relu("b", "w", "v")], "'b'"),
        (
            [relu("in", "x", "u"), Node("a", Add(), ("u", "w"), ("v",)), relu("b", "v", "w")],
            "'a' -> 'b'",
        ),
    ],
)
def test_cycles_are_named(nodes: list[Node], said: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        in_topological_order(nodes, {"x"})
    assert "cycle" in str(caught.value)
    assert said in str(caught.value)


def test_order_refuses_names_that_nobody_writes() -> None:
    with pytest.raises(InvalidModelError, match="node 'a' reads 'nowhere'"):
        in_topological_order([relu("a", "nowhere", "y")], {"x"})


def test_a_valid_order_is_kept() -> None:
    nodes = [relu("c", "x", "1"), relu("a", "x", "2"), relu("b", "1", "3")]
    assert in_topological_order(nodes, {"x"}) == tuple(nodes)


def test_order_of_ten_thousand_shuffled_nodes() -> None:
    chain = [relu(f"n{i}", f"v{i}", f"v{i + 1}") for i in range(10_000)]
    shuffled = chain[:]
    random.Random(0).shuffle(shuffled)
    assert in_topological_order(shuffled, {"v0"}) == tuple(chain)


def test_dead_code_is_dropped() -> None:
    nodes = (relu("a", "x", "y"), relu("b", "x", "unused"), relu("c", "unused", "too"))
    constants = {"w": np.zeros(2)}
    kept = Graph(nodes, X, ("y",), constants).without_dead_code()
    assert [node.name for node in kept.nodes] == ["a"]
    assert not kept.constants
    assert kept.without_dead_code() is kept


def test_producers_and_consumers() -> None:
    add = Node("add", Add(), ("v", "v"), ("y",))
    graph = Graph((relu("a", "x", "v"), add), X, ("y",))
    assert graph.producers["v"].name == "a"
    assert graph.consumers["v"] == (add,)


def test_extract_takes_what_is_read_outside() -> None:
    nodes = (relu("a", "x", "v"), relu("b", "v", "w"), relu("c", "w", "y"))
    graph = Graph(nodes, X, ("y", "v"))
    inner = graph.extract(nodes[:2], {"x": X["x"]})
    assert tuple(inner.inputs) == ("x",)
    assert inner.outputs == ("v", "w")


SAME = Graph((Node("a", LeakyRelu(0.1), ("x",), ("y",)),), X, ("y",), {"c": np.ones(2)})


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (replace(SAME), True),
        (replace(SAME, metadata={"producer": "someone"}), True),
        (replace(SAME, nodes=(Node("a", LeakyRelu(0.2), ("x",), ("y",)),)), False),
        (replace(SAME, inputs={"x": TensorType(FLOAT32, (2, 4))}), False),
        (replace(SAME, constants={"c": np.zeros(2)}), False),
        (replace(SAME, outputs=("y", "x")), False),
    ],
)
def test_fingerprint(other: Graph, equal: bool) -> None:
    assert (other.fingerprint == SAME.fingerprint) is equal
