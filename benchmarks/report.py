"""The results as a page to read (Markdown), beside the data (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import REFERENCE
from benchmarks.markdown import bullets, error, markdown_table, number, ratio
from benchmarks.resident import HEADINGS, Itemised
from benchmarks.results import Case, Comparison, Result, write_results
from mnnpy.runtime.files import write_atomically

SPEED_UPS = (
    "Speed-up: the peer's best time over ours from the same run; 1.30x means that we are 1.30 "
    "times as fast, below 1 the peer is ahead."
)
_MEAN = "geometric mean, convolutional"


@dataclass(frozen=True, slots=True)
class Report:
    """All results with what is needed to judge them.

    Parameters
    ----------
    facts : lines about the machine, the versions and the settings.
    notes : what was left out or failed, and why.
    memory : where the resident memory is; empty where that was not measured.
    """

    results: Sequence[Result]
    facts: Sequence[str]
    notes: Sequence[str]
    memory: Sequence[Itemised] = ()

    def markdown(self) -> str:
        """The page ``cpu.md``."""
        compared = Comparison(self.results)
        parts = ["# Side by side on the CPU", bullets(self.facts)]
        for threads in compared.threads:
            parts += [f"## {threads} thread{'s' if threads > 1 else ''}"]
            parts += [_times(compared, threads), _speed_ups(compared, threads)]
        started = [r for r in self.results if r.startup is not None]
        sections = {
            "Batches": _batches(compared),
            "From one thread to more": _scaling(compared),
            "Spread, errors and predictions": _details(self.results),
            "Start-up and memory, each in a fresh process": _startups(started),
            "Where the resident memory is": _memory(self.memory),
            "Left out": bullets(self.notes),
        }
        for title, content in sections.items():
            parts += [f"## {title}", content] if content else []
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, folder: Path) -> None:
        """Write ``cpu.md`` and ``cpu.json``, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_results(folder / "cpu.json", self.results)
        write_atomically(folder / "cpu.md", self.markdown().encode())


def _times(compared: Comparison, threads: int) -> str:
    """Best time of every engine; cases down, engines across."""
    rows = [
        [str(case), *(number(compared.best(case, threads, e)) for e in compared.engines)]
        for case in compared.cases(threads)
    ]
    table = markdown_table(["model", *compared.engines], rows)
    return f"Best time of one run in milliseconds.\n\n{table}"


def _speed_ups(compared: Comparison, threads: int) -> str:
    """How much faster we are than each peer and than the best; empty without either."""
    if not compared.ours or not compared.peers:
        return ""
    against = (*compared.peers, None)
    rows = []
    for engine in compared.ours:
        for case in compared.cases(threads):
            found = (compared.speed_up(case, threads, engine, peer) for peer in against)
            rows.append([engine, str(case), *map(ratio, found)])
        means = (compared.mean_speed_up(threads, engine, peer) for peer in against)
        rows.append([engine, _MEAN, *map(ratio, means)])
    headings = ["engine", "model", *(f"over {peer}" for peer in compared.peers), "over best peer"]
    return f"{SPEED_UPS}\n\n{markdown_table(headings, rows, names=2)}"


def _batches(compared: Comparison) -> str:
    """Times per sample, and what batches change for us; empty without any."""
    rows = []
    for threads in compared.threads:
        cases = compared.cases(threads)
        batched = {case.model for case in cases if case.batch > 1}
        for case in (case for case in cases if case.model in batched):
            times = (compared.best(case, threads, engine) for engine in compared.engines)
            found = [None if time is None else time / case.batch for time in times]
            alone = Case(case.model, 1, case.sequence)
            gains = [
                _quotient(compared.best(alone, threads, e), compared.best(case, threads, e))
                for e in compared.ours
            ]
            gained = (None if gain is None else gain * case.batch for gain in gains)
            over = (compared.speed_up(case, threads, e) for e in compared.ours)
            cells = [*map(number, found), *map(ratio, gained), *map(ratio, over)]
            rows.append([case.model, str(case.batch), str(threads), *cells])
    if not rows:
        return ""
    headings = ["model", "batch", "threads", *compared.engines]
    headings += [f"{engine} over its batch 1" for engine in compared.ours]
    headings += [f"{engine} over best peer" for engine in compared.ours]
    return f"Milliseconds per sample.\n\n{markdown_table(headings, rows)}"


def _scaling(compared: Comparison) -> str:
    """Time on the fewest threads over that on the most; empty where there is one number."""
    few, most = min(compared.threads, default=1), max(compared.threads, default=1)
    if few == most:
        return ""
    rows = []
    for case in compared.cases(few):
        found = (
            _quotient(compared.best(case, few, engine), compared.best(case, most, engine))
            for engine in compared.engines
        )
        rows.append([str(case), *map(ratio, found)])
    text = f"Time on {few} over time on {most} threads."
    return f"{text}\n\n{markdown_table(['model', *compared.engines], rows)}"


def _quotient(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _details(results: Sequence[Result]) -> str:
    headings = ["model", "engine", "threads", "best ms", "median ms", "rounds", "max error"]
    rows = [
        [
            str(r.case),
            r.engine,
            str(r.threads),
            number(r.best_ms),
            number(r.median_ms),
            str(r.rounds),
            error(r.max_error),
            number(r.predicted_ms),
            ratio(_quotient(r.predicted_ms, r.best_ms)),
        ]
        for r in results
    ]
    return markdown_table([*headings, "predicted ms", "predicted / best"], rows, names=2)


def _startups(results: Sequence[Result]) -> str:
    headings = ["model", "engine", "threads", "create ms", "cold ms", "first run ms"]
    rows = [
        [
            str(r.case),
            r.engine,
            str(r.threads),
            number(s.create_ms),
            number(s.cold_ms),
            number(s.first_run_ms),
            number(s.resident_mib),
            number(s.peak_mib),
        ]
        for r in results
        if (s := r.startup) is not None
    ]
    table = markdown_table([*headings, "resident MiB", "peak MiB"], rows, names=2)
    return table if rows else ""


def _memory(processes: Sequence[Itemised]) -> str:
    if not processes:
        return ""
    table = markdown_table(HEADINGS, [process.row() for process in processes], names=2)
    above = ", ".join(f"{p.model}{p.file}" for p in processes if p.total > p.limit)
    return (
        f"MiB of mnnpy's process with the numba backend after one run on one thread. The limit is "
        f"{REFERENCE}'s total, the packed weights and an allowance.\n\n{table}\n\n"
        f"Above the limit: {above or 'none'}."
    )
