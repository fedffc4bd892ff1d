"""Plans of batches, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.parted import Bound
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.planner import Planned
from mnnpy.runtime.registry import with_fallbacks
from tests.runtime.graphs import assert_close, random_feeds


def planned(graph: Graph, backend: str = "numba", **options: Any) -> Planned:
    """A plan for a graph's declared inputs; ``options`` are threads, one unless given, and
    constraints.
    """
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    threads = options.pop("threads", 1)
    return plan_batch(graph, inputs, with_fallbacks(backend), Constraints(**options), threads)


def check_runs(bound: Bound, graph: Graph) -> None:
    """Runs of a bound plan give what the graph gives, in arrays that are the caller's."""
    for seed in range(3):
        feeds = random_feeds(graph, seed)
        found = bound.run(feeds)
        assert_close(found, evaluate(graph, np, feeds))
        for array in found.values():
            array[...] = np.nan  # Later runs do not read them.
