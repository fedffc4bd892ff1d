"""Planned memory of the benchmark models against the lower bound; plans only, runs nothing.

An independent checker walks every plan and looks whether a value is overwritten that is still
read. ``python -m benchmarks.memory`` ends with exit code 1 where it finds one, or where a plan is
above the limit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.models import MODELS
from mnnpy import load_model
from mnnpy.runtime.feeds import concrete_inputs
from mnnpy.runtime.preinference.check_memory import check_memory
from mnnpy.runtime.preinference.explain import nbytes_text
from mnnpy.runtime.preinference.plan import MemoryPlan
from mnnpy.runtime.preinference.planner import make_plan
from mnnpy.runtime.registry import with_fallbacks
from mnnpy.runtime.text_table import text_table

HEADINGS = ("model", "memory", "peak", "lower bound", "ratio", "workspace", "all values", "weights")


def planned_memory(
    model: str, backend: str, batch: int = 1, sequence: int = 128
) -> tuple[MemoryPlan, int, int]:
    """The memory plan of a benchmark model, its constants' bytes, and the faults found in it."""
    graph = load_model(MODELS[model](batch=batch, sequence=sequence).SerializeToString())
    backends = with_fallbacks(backend)
    planned = make_plan(graph, concrete_inputs(graph, None), backends)
    faults = check_memory(planned.plan, planned.values, backends)
    weights = sum(array.nbytes for array in graph.constants.values())
    return planned.plan.memory, weights, len(faults)


def memory_rows(model: str, memory: MemoryPlan, weights: int) -> list[list[str]]:
    """A line per arena."""
    rows = []
    for name, peak in memory.arenas.items():
        scratch = [slot.nbytes for slot in memory.workspaces if slot and slot.memory == name]
        values = sum(slot.nbytes for slot in memory.slots.values() if slot.memory == name)
        bound = memory.lower_bound[name]
        ratio = f"{peak / bound:.3f}" if bound else "-"
        sizes = (max(scratch, default=0), values, weights)
        cells = [nbytes_text(peak), nbytes_text(bound), ratio, *map(nbytes_text, sizes)]
        rows.append([model, name, *cells])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print planned peak, lower bound, largest workspace and the sum without any sharing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128, help="tokens of bert_encoder")
    parser.add_argument("--limit", type=float, default=1.1, help="most times the lower bound")
    options = parser.parse_args(arguments)
    rows, above, faulty = [], [], []
    for model in options.models:
        memory, weights, faults = planned_memory(
            model, options.backend, options.batch, options.sequence
        )
        rows += [[*row, str(faults)] for row in memory_rows(model, memory, weights)]
        if any(peak > options.limit * memory.lower_bound[m] for m, peak in memory.arenas.items()):
            above.append(model)
        if faults:
            faulty.append(model)
    print(text_table((*HEADINGS, "faults"), rows, (*HEADINGS[2:], "faults")))
    if above:
        print(f"\nabove {options.limit} times the lower bound: {', '.join(above)}")
    if faulty:
        print(f"\nvalues are overwritten while they are needed: {', '.join(faulty)}")
    return 1 if above or faulty else 0


if __name__ == "__main__":
    raise SystemExit(main())
