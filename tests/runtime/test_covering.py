"""Regions that cover a graph: most saved, nothing twice."""

from __future__ import annotations

import pytest

from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.preinference.covering import Proposal, cover_by

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("savings", "wanted"),
    [
        ({"ab": 3, "bc": 4}, {"bc"}),
        ({"ab": 3, "cd": 4}, {"ab", "cd"}),
        ({"abcd": 6, "ab": 3, "cd": 4}, {"ab", "cd"}),
        ({"abcd": 8, "ab": 3, "cd": 4}, {"abcd"}),
        ({"abcd": 7, "ab": 3, "cd": 4}, {"ab", "cd"}),
        # What lies within is itself left out where it is outdone.
        ({"abcdef": 6, "cdef": 4, "ab": 1, "cd": 3, "ef": 3}, {"ab", "cd", "ef"}),
        ({"abcdef": 8, "cdef": 4, "ab": 1, "cd": 3, "ef": 3}, {"abcdef"}),
        # A region that crosses the pieces competes with all of them.
        ({"abcd": 6, "ab": 3, "cd": 4, "bc": 9}, {"bc"}),
        ({"abc": INFINITE, "ab": INFINITE}, {"abc"}),
    ],
    ids=str,
)
def test_cover_saves_most(savings: dict[str, float], wanted: set[str]) -> None:
    nodes = {name: Node(name, Relu(), (), (name,)) for name in "abcdef"}
    proposals = [
        Proposal(tuple(nodes[name] for name in names), nodes[names[0]], saving)
        for names, saving in savings.items()
    ]
    chosen = ["".join(part.name for part in proposal.parts) for proposal in cover_by(proposals)]
    assert set(chosen) == wanted
    assert len("".join(chosen)) == len(set("".join(chosen)))
