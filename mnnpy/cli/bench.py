"""``mnnpy bench``: how long runs take, per backend and thread count, and where the time goes."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

from mnnpy import Session, __version__
from mnnpy.cli import options
from mnnpy.cli.feeds import feeds_from_files, refuse_shapes
from mnnpy.cli.progress import progress_bar
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.preinference.explain import seconds_text
from mnnpy.runtime.profiling import Profile
from mnnpy.runtime.text_table import text_table
from mnnpy.sampling import random_feeds

_STATISTICS = ("best", "median", "p90", "p99", "mean")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every timed run of one configuration."""

    backend: str
    threads: int | None
    seconds: tuple[float, ...]
    predicted: float
    profile: Profile | None

    def statistics(self) -> dict[str, float]:
        """Best, percentiles and mean, in seconds."""
        best, median, p90, p99 = np.percentile(self.seconds, (0, 50, 90, 99)).tolist()
        return dict(
            zip(_STATISTICS, (best, median, p90, p99, float(np.mean(self.seconds))), strict=True)
        )


def bench(
    model: options.Model,
    shape: options.Shapes = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="Files as for `mnnpy run`; random unless given."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="May be repeated.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", "-t", min=1, help="May be repeated.")
    ] = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Runs before the clock starts.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 20,
    steps: Annotated[bool, typer.Option("--steps", help="Time every step, too.")] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Write a trace for ui.perfetto.dev (first configuration).")
    ] = None,
    json_output: Annotated[
        Path | None, typer.Option("--json", help="Write all times to this file.")
    ] = None,
    plan: options.PlanFile = None,
    seed: options.Seed = 0,
) -> None:
    """Time a model: best, median, percentiles, and every step where asked.

    **Examples**

    ```
    mnnpy bench model.mnnpy
    mnnpy bench model.mnnpy --shape 8,3,224,224 -b numpy -b numba -t 1 -t 2
    mnnpy bench model.mnnpy --steps --trace trace.json --json times.json
    ```
    """
    timings = []
    with progress_bar(f"timing {model.name}") as report:
        counts: Sequence[int | None] = threads or [None]
        pairs = [(name, count) for name in backend or ["auto"] for count in counts]
        for index, (name, count) in enumerate(pairs):
            told = f"{name}, {_threads_text(count)}"
            report(index / len(pairs), told)
            session = Session(model, name, count, plan=plan)
            feeds = _feeds(session.graph, shape, inputs, seed)
            session.executable(feeds, report)
            report(index / len(pairs), told)
            timings.append(_time(session, feeds, warm_up, repeats, steps or trace is not None))
    batch = _batch(feeds)
    typer.echo(_table(timings, batch))
    for timing in timings if steps else ():
        assert timing.profile is not None
        typer.echo(f"\n{timing.backend}, {_threads_text(timing.threads)}")
        typer.echo(timing.profile.table())
    if trace is not None and timings[0].profile is not None:
        timings[0].profile.write_trace(trace)
        typer.echo(f"wrote {trace}")
    if json_output is not None:
        report_text = json.dumps(_as_json(model, feeds, timings), indent=1)
        write_atomically(json_output, report_text.encode())
        typer.echo(f"wrote {json_output}")


def _feeds(
    graph: Graph, shape: Sequence[str] | None, inputs: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    if inputs:
        refuse_shapes(shape)
        return feeds_from_files(graph, inputs)
    return random_feeds(graph, options.shapes_for(graph, shape), seed)


def _time(
    session: Session, feeds: Mapping[str, Any], warm_up: int, repeats: int, steps: bool
) -> Timing:
    for _ in range(warm_up):
        session.run(feeds)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        session.run(feeds)
        seconds.append(perf_counter() - start)
    profile = session.profile(feeds, repeats) if steps else None
    predicted = session.executable(feeds).plan.seconds
    return Timing(session.backend, session.threads, tuple(seconds), predicted, profile)


def _table(timings: Sequence[Timing], batch: int) -> str:
    headings = ("backend", "threads", *_STATISTICS, "predicted", "per second")
    rows = []
    for timing in timings:
        found = timing.statistics()
        times = [seconds_text(found[name]) for name in _STATISTICS]
        rate = f"{batch / found['median']:.4g}"
        threads = _threads_text(timing.threads)
        rows.append([timing.backend, threads, *times, seconds_text(timing.predicted), rate])
    return text_table(headings, rows, headings[2:])


def _threads_text(threads: int | None) -> str:
    return "all threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"


def _batch(feeds: Mapping[str, Any]) -> int:
    """Size of the first axis that all inputs share, else 1."""
    sizes = {np.shape(feed)[0] if np.ndim(feed) else 1 for feed in feeds.values()}
    return max(sizes.pop(), 1) if len(sizes) == 1 else 1


def _as_json(model: Path, feeds: Mapping[str, Any], timings: Sequence[Timing]) -> dict[str, Any]:
    """Everything measured, in seconds, with what is needed to compare it later."""
    return {
        "model": str(model),
        "shapes": {name: list(np.shape(feed)) for name, feed in feeds.items()},
        "machine": platform.processor() or platform.machine(),
        "versions": {"mnnpy": __version__, "numpy": np.__version__},
        "timings": [
            {
                "backend": timing.backend,
                "threads": timing.threads,
                **timing.statistics(),
                "predicted": timing.predicted,
                "seconds": list(timing.seconds),
                "steps": _steps_as_json(timing.profile),
            }
            for timing in timings
        ],
    }


def _steps_as_json(profile: Profile | None) -> list[dict[str, Any]] | None:
    if profile is None:
        return None
    return [
        {
            "node": entry.step.node.name,
            "operator": entry.step.node.op.kind,
            "backend": entry.step.choice.backend,
            "scheme": entry.step.choice.scheme,
            "config": dict(entry.step.choice.config),
            "predicted": entry.predicted,
            "best": entry.best,
            "median": entry.median,
        }
        for entry in profile.steps
    ]
