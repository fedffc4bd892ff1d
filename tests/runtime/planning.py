"""Plans of batches, for tests."""

from __future__ import annotations

from typing import Any

from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.planner import Planned
from mnnpy.runtime.registry import with_fallbacks


def planned(graph: Graph, backend: str = "numba", **options: Any) -> Planned:
    """A plan for a graph's declared inputs; ``options`` are threads, one unless given, and
    constraints.
    """
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    threads = options.pop("threads", 1)
    return plan_batch(graph, inputs, with_fallbacks(backend), Constraints(**options), threads)
