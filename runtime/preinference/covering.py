"""Covering a graph by regions: those that save most, none sharing a node with another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mnnpy.runtime.graph.graph import Node


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Nodes that may run as one, and the seconds that this saves; infinite where some node cannot
    run alone.
    """

    parts: tuple[Node, ...]
    region: Node
    saving: float

    @property
    def names(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts)


def cover_by(proposals: Sequence[Proposal]) -> list[Proposal]:
    """The proposals to follow: greedy, the one that saves most first.

    One that smaller ones within it outdo together is left out: it saves more than each of them, and
    would come first. Of equal ones the earlier is preferred.
    """
    starting: dict[str, list[Proposal]] = {}
    kept: set[Proposal] = set()
    for proposal in sorted(proposals, key=lambda p: len(p.parts)):
        names = proposal.names
        inside = [p for name in names for p in starting.get(name, ()) if p.names <= names]
        if math.isinf(proposal.saving) or proposal.saving > _together(inside):
            starting.setdefault(proposal.parts[0].name, []).append(proposal)
            kept.add(proposal)
    return _disjoint(proposal for proposal in proposals if proposal in kept)


def _together(proposals: Iterable[Proposal]) -> float:
    return sum(proposal.saving for proposal in _disjoint(proposals))


def _disjoint(proposals: Iterable[Proposal]) -> list[Proposal]:
    """The proposal that saves most, then those that share no node with one before."""
    taken: set[str] = set()
    chosen = []
    for proposal in sorted(proposals, key=lambda p: -p.saving):
        if taken.isdisjoint(proposal.names):
            taken |= proposal.names
            chosen.append(proposal)
    return chosen
