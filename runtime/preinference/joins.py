"""Where the parts of a batch may join: the whole batch runs what lies behind.

Early layers of a network have large tensors and small weights and do best with few samples in the
caches; late ones have it the other way round, and do best reading their weights once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.plan import Plan


@dataclass(frozen=True, slots=True)
class Join:
    """A value that is all that later nodes read of what is there behind the node at ``place``."""

    value: str
    place: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a batch would take in so many parts up to a join, and as a whole from there on."""

    join: Join
    count: int
    before: float
    behind: float

    @property
    def seconds(self) -> float:
        return self.before + self.behind


def find_joins(graph: Graph, values: Mapping[str, Value]) -> Iterator[Join]:
    """Every join of a graph, in order; none behind an output, and constants do not count.

    There are none where an output is known already: no stage would give it out.
    """
    if any(values[name].constant for name in graph.outputs):
        return
    last = {name: graph.places[readers[-1].name] for name, readers in graph.consumers.items()}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    alive = {name for name in graph.inputs if name in last}
    for place, node in enumerate(graph.nodes[:-1]):
        alive.update(n for n in node.outputs if n in last and not values[n].constant)
        alive -= {name for name in node.reads if last[name] <= place}
        if len(alive) == 1 and alive.isdisjoint(graph.outputs):
            (value,) = alive
            yield Join(value, place)


def estimate_join(joins: Sequence[Join], graph: Graph, whole: Plan, parted: Plan) -> Estimate:
    """The best of some joins by the costs of two plans of all, and none of their regions cut.

    Parameters
    ----------
    joins : at least one.
    whole, parted : plans of the whole batch, and of one part.
    """
    before, behind = _Timetable.of(parted, graph), _Timetable.of(whole, graph)
    rounds, total = parted.parts.rounds, behind.until[-1]
    estimates = [
        Estimate(join, parted.parts.count, rounds * before.until[i], total - behind.until[i])
        for join in joins
        if not (before.cut[i := join.place + 1] or behind.cut[i])
    ]
    nowhere = Estimate(joins[0], parted.parts.count, float("inf"), 0.0)
    return min(estimates, key=lambda found: found.seconds, default=nowhere)


@dataclass(frozen=True, slots=True)
class _Timetable:
    """Of steps that end before the node at each place: seconds; and whether a region is cut there.

    Both have an entry more than the graph has nodes.
    """

    until: Sequence[float]
    cut: Sequence[bool]

    @staticmethod
    def of(plan: Plan, graph: Graph) -> _Timetable:
        size = len(graph.nodes) + 1
        seconds, open_regions = [0.0] * size, [0] * (size + 1)
        made: dict[str, int] = {}
        for step in plan.steps:
            nodes = step.node.op.graph.nodes if isinstance(step.node.op, Fused) else (step.node,)
            found = [graph.places[node.name] for node in nodes if node.name in graph.places]
            copied = [made.get(name, -1) for name in step.node.reads]
            places = found or [max(copied, default=-1)]
            first, last = min(places), max(places)
            seconds[last + 1] += step.choice.cost.seconds
            open_regions[first + 1] += 1
            open_regions[last + 1] -= 1
            made.update(dict.fromkeys(step.node.outputs, last))
        return _Timetable(list(accumulate(seconds)), [n > 0 for n in accumulate(open_regions)])
