"""``mnnpy search``: measure the candidates of every layer and keep the best plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mnnpy.cli.progress import progress_bar
from mnnpy.models import load_model
from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.errors import ConfigError, PlanError
from mnnpy.runtime.feeds import concrete_inputs
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.plan_file import save_plan
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.explain import config_text, nbytes_text, seconds_text
from mnnpy.runtime.preinference.plan import Plan
from mnnpy.runtime.registry import usable_backend
from mnnpy.runtime.search import Layer, SearchResult
from mnnpy.runtime.search import search as search_plan
from mnnpy.runtime.search_config import SearchConfig, load_search_config
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("operator", "nodes", "backend", "scheme", "config", "predicted", "measured")


def search(
    config: Annotated[
        str, typer.Argument(help="A search file, or the name of a shipped one.", show_default=False)
    ],
    model: Annotated[
        Path | None, typer.Option(help="The model, where not the one that the file names.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the plan.")
    ] = None,
) -> None:
    """Measure the schemes that may run each layer, and write the best plan found.

    The plan is used by `mnnpy run --plan`, `mnnpy bench --plan` and `Session(model, plan=...)`.

    **Examples**

    ```
    mnnpy search digits
    mnnpy search my_search.yaml --model model.mnnpy -o best.plan.json
    ```
    """
    loaded = load_search_config(config)
    chosen, target = model or loaded.model, output or loaded.output
    if chosen is None:
        raise ConfigError(f"{config}: names no model: set the key 'model', or use --model")
    with progress_bar(f"searching {chosen.name}") as report:
        result = run_search(loaded, chosen, report)
    rows = [row for layer in result.layers for row in _layer_rows(layer)]
    typer.echo(text_table(_HEADINGS, rows, ("nodes", *_HEADINGS[-2:])) + "\n")
    plans = {
        "default": (result.default.plan, result.default_seconds),
        "searched": (result.searched.plan, result.searched_seconds),
    }
    for name, (plan, seconds) in plans.items():
        typer.echo(f"{name:9} {seconds_text(seconds)}, {nbytes_text(total_nbytes(plan))} of memory")
    best = best_plan(result, loaded.memory_cap_nbytes)
    save_plan(best, target)
    which = "searched" if best is result.searched.plan else "default"
    typer.echo(f"wrote the {which} plan to {target}")


def run_search(
    config: SearchConfig, model: Path, progress: Callable[[float, str], None]
) -> SearchResult:
    """Search as the configuration says, under a workspace limit where memory is capped."""
    graph = load_model(model)
    inputs = concrete_inputs(graph, config.shapes)
    backends = [usable_backend(name) for name in config.backends]
    if "numpy" not in config.backends:
        backends.append(usable_backend("numpy"))
    return search_plan(
        graph,
        inputs,
        backends,
        capped_constraints(graph, inputs, backends, config),
        threads=config.threads,
        budget=config.budget,
        repeats=config.repeats,
        seed=config.seed,
        progress=progress,
    )


def capped_constraints(
    graph: Graph, inputs: Mapping[str, Value], backends: Sequence[Backend], config: SearchConfig
) -> Constraints:
    """The constraints, with the largest workspaces ruled out until the plan fits the memory cap.

    Raises
    ------
    PlanError
        Where no plan fits; says how much the smallest needs.
    """
    constraints = config.constraints
    while config.memory_cap_nbytes is not None:
        plan = plan_batch(graph, inputs, backends, constraints, config.threads).plan
        steps = (step for stage in plan.stages for step in stage.steps)
        largest = max(step.choice.cost.workspace_nbytes for step in steps)
        if total_nbytes(plan) <= config.memory_cap_nbytes:
            break
        if not largest:
            raise PlanError(
                f"no plan fits memory_cap_nbytes {config.memory_cap_nbytes}: "
                f"without any workspace it still needs {total_nbytes(plan)}"
            )
        constraints = replace(constraints, max_workspace_nbytes=largest - 1)
    return constraints


def best_plan(result: SearchResult, cap: int | None) -> Plan:
    """The searched plan where it is not slower and fits the memory cap, else the default one."""
    best = result.best.plan
    return best if cap is None or total_nbytes(best) <= cap else result.default.plan


def total_nbytes(plan: Plan) -> int:
    """Bytes of all arenas of a plan."""
    return plan.arena_nbytes


def _layer_rows(layer: Layer) -> list[list[str]]:
    """Candidates of one layer, the fastest first; those that were not measured last."""
    ranked = sorted(
        layer.candidates,
        key=lambda c: (c.measured is None, c.predicted if c.measured is None else c.measured),
    )
    return [
        [
            layer.kind if first else "",
            str(len(layer.nodes)) if first else "",
            candidate.backend,
            candidate.scheme,
            config_text(candidate.config),
            seconds_text(candidate.predicted),
            "-" if candidate.measured is None else seconds_text(candidate.measured),
        ]
        for candidate, first in zip(ranked, [True] + [False] * len(ranked), strict=False)
    ]
