"""How much new data a rewrite may put into a model."""

from __future__ import annotations

from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.rewrite import Subject

GROWTH_LIMIT_NBYTES = 1 << 20
"""Constants that a rewrite makes may be this much larger than those that it makes superfluous."""


def grows_too_much(subject: Subject, node: Node, made_nbytes: int) -> bool:
    """Whether ``made_nbytes`` of new constants are too many in exchange for the node's own."""
    freed = sum(
        int(subject.constants[name].nbytes)
        for name in dict.fromkeys(node.reads)
        if name in subject.constants and subject.private(name)
    )
    return made_nbytes - freed > GROWTH_LIMIT_NBYTES
