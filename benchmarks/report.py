"""The results as a page to read (Markdown) and as data (JSON)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.engines import is_ours
from benchmarks.startup import Startup
from mnnpy.runtime.files import write_atomically

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Result:
    """One engine on one model.

    Parameters
    ----------
    max_error : max|d| / max|reference| against the reference engine; None where that is missing.
    predicted_ms : what our plan expected; None for peers.
    startup : None where it was not measured.
    """

    model: str
    threads: int
    batch: int
    engine: str
    best_ms: float
    median_ms: float
    rounds: int
    max_error: float | None = None
    predicted_ms: float | None = None
    startup: Startup | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All results with what is needed to judge them.

    Parameters
    ----------
    facts : lines about the machine, the versions and the settings.
    notes : what was left out or failed, and why.
    """

    results: Sequence[Result]
    facts: Sequence[str]
    notes: Sequence[str]

    def markdown(self) -> str:
        """The page ``cpu.md``."""
        parts = ["# Side by side on the CPU", _bullets(self.facts)]
        for threads in _ordered(r.threads for r in self.results):
            mine = [r for r in self.results if r.threads == threads]
            parts += [f"## {threads} thread{'s' if threads > 1 else ''}", _times(mine)]
            parts += [table for table in (_ratios(mine), _details(mine)) if table]
        started = [r for r in self.results if r.startup is not None]
        if started:
            parts += ["## Start-up and memory, each in a fresh process", _startups(started)]
        if self.notes:
            parts += ["## Left out", _bullets(self.notes)]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``cpu.md`` and ``cpu.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        data = [asdict(result) for result in self.results]
        write_atomically(folder / "cpu.json", (json.dumps(data, indent=1) + "\n").encode())
        write_atomically(folder / "cpu.md", self.markdown().encode())


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n positive numbers. Raises ``ValueError`` on none."""
    if not values:
        raise ValueError("the geometric mean of no values")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table that reads well unrendered too.

    Parameters
    ----------
    names : columns at the left that hold names; the others hold numbers, aligned on the right.
    """
    cells = [list(headings), *map(list, rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if column < names else "-" * (w - 1) + ":" for column, w in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def _times(results: Sequence[Result]) -> str:
    """Best time of every engine; models down, engines across."""
    engines = _ordered(r.engine for r in results)
    rows = []
    for model in _ordered(r.model for r in results):
        best = {r.engine: r.best_ms for r in results if r.model == model}
        rows.append([model, *(_number(best.get(engine)) for engine in engines)])
    table = markdown_table(["model", *engines], rows)
    return f"Best time of one run in milliseconds, batch {_batches(results)}.\n\n{table}"


def _ratios(results: Sequence[Result]) -> str:
    """Our times as multiples of each peer's and of the best peer's; empty without either."""
    ours = [e for e in _ordered(r.engine for r in results) if is_ours(e)]
    peers = [e for e in _ordered(r.engine for r in results) if not is_ours(e)]
    if not ours or not peers:
        return ""
    best = {(r.model, r.engine): r.best_ms for r in results}
    rows = []
    for engine in ours:
        columns: list[list[float]] = [[] for _ in (*peers, "best")]
        for model in _ordered(r.model for r in results if r.engine == engine):
            times = [best.get((model, peer)) for peer in peers]
            known = [time for time in times if time is not None]
            against = [*times, min(known, default=None)]
            found = [time and best[model, engine] / time for time in against]
            for column, ratio in zip(columns, found, strict=True):
                column += [] if ratio is None else [ratio]
            rows.append([engine, model, *map(_ratio, found)])
        means = [geometric_mean(column) if column else None for column in columns]
        rows.append([engine, "geometric mean", *map(_ratio, means)])
    headings = ["engine", "model", *(f"/ {peer}" for peer in peers), "/ best peer"]
    text = "Our best time over the peer's best time: below 1 we are faster."
    return f"{text}\n\n{markdown_table(headings, rows, names=2)}"


def _details(results: Sequence[Result]) -> str:
    """Spread, errors, and predictions beside what was measured."""
    headings = ["model", "engine", "best ms", "median ms", "rounds", "max error"]
    rows = [
        [
            r.model,
            r.engine,
            _number(r.best_ms),
            _number(r.median_ms),
            str(r.rounds),
            "-" if r.max_error is None else f"{r.max_error:.1e}",
            _number(r.predicted_ms),
            _ratio(r.predicted_ms and r.predicted_ms / r.best_ms),
        ]
        for r in results
    ]
    return markdown_table([*headings, "predicted ms", "predicted / best"], rows, names=2)


def _startups(results: Sequence[Result]) -> str:
    headings = ["model", "engine", "threads", "create ms", "first run ms"]
    rows = [
        [
            r.model,
            r.engine,
            str(r.threads),
            _number(s.create_ms),
            _number(s.first_run_ms),
            _number(s.resident_mib),
            _number(s.peak_mib),
        ]
        for r in results
        if (s := r.startup) is not None
    ]
    return markdown_table([*headings, "resident MiB", "peak MiB"], rows, names=2)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _batches(results: Sequence[Result]) -> str:
    return ", ".join(str(batch) for batch in sorted({r.batch for r in results}))


def _ordered(values: Iterable[_T]) -> list[_T]:
    """Without repetitions, as they were met."""
    return list(dict.fromkeys(values))


def _formatted(text: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else text(value)


_number = _formatted(lambda value: f"{value:.2f}" if value < 100 else f"{value:.0f}")
_ratio = _formatted(lambda value: f"{value:.2f}x")
