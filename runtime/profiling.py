"""Profiles: the time of every step beside its prediction, as a table and as a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from mnnpy.runtime.execution import Executable
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.parted import Bound, JoinedExecutable, PartedExecutable
from mnnpy.runtime.preinference.explain import (
    config_text,
    nbytes_text,
    seconds_text,
    shape_text,
)
from mnnpy.runtime.preinference.plan import WHOLE, Parts, Step
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("step", "node", "operator", "output", "backend", "scheme")
_TIMES = ("predicted", "best", "median", "share")


@dataclass(frozen=True, slots=True, eq=False)
class StepProfile:
    """Times of one step: ``seconds[i]`` and ``starts[i]`` in run i, from the run's start.

    ``rounds`` is how often a whole run does the step, one after the other.
    """

    step: Step
    starts: tuple[float, ...]
    seconds: tuple[float, ...]
    rounds: int = 1

    @property
    def predicted(self) -> float:
        return self.step.choice.cost.seconds

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What repeated runs took.

    Parameters
    ----------
    steps : in order of execution, over all segments.
    runs : seconds of whole runs that were not interrupted after each step.
    stepwise_runs : seconds of the runs that timed the steps.
    parts : how a batch runs; the steps are those of one part.
    joined : whether parts join, and the steps of the whole behind follow.
    """

    steps: tuple[StepProfile, ...]
    runs: tuple[float, ...]
    stepwise_runs: tuple[float, ...]
    parts: Parts = WHOLE
    joined: bool = False

    @property
    def best(self) -> float:
        return min(self.runs)

    @property
    def median(self) -> float:
        return median(self.runs)

    @property
    def predicted(self) -> float:
        """Of a whole run, in all its parts."""
        return sum(step.rounds * step.predicted for step in self.steps)

    def table(self) -> str:
        """One line per step, with its share of the steps' total, and the totals."""
        total = sum(step.median for step in self.steps)
        rows = [_row(index, step, total) for index, step in enumerate(self.steps)]
        predicted = sum(step.predicted for step in self.steps)
        of = f" of one part of {self.parts.count}" if self.parts.count > 1 else ""
        of += ", and of the whole behind it" if self.joined else ""
        steps = (
            f"steps{of}: {seconds_text(predicted)} predicted, "
            f"{seconds_text(sum(step.best for step in self.steps))} best, "
            f"{seconds_text(total)} median"
        )
        runs = (
            f"whole run: {seconds_text(self.predicted)} predicted, {seconds_text(self.best)} best, "
            f"{seconds_text(self.median)} median "
            f"of {len(self.runs)}"
        )
        table = text_table((*_HEADINGS, *_TIMES), rows, ("step", *_TIMES))
        return "\n".join([table, "", steps, runs])

    def trace(self) -> dict[str, Any]:
        """Trace events (Chrome's JSON format, read by ui.perfetto.dev); one row per backend."""
        backends = list(dict.fromkeys(step.step.choice.backend for step in self.steps))
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}}
            for tid, name in enumerate(backends)
        ]
        start = 0.0
        for run, seconds in enumerate(self.stepwise_runs):
            for entry in self.steps:
                tid = backends.index(entry.step.choice.backend)
                events.append(_event(entry, run, start, tid))
            start += seconds
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def write_trace(self, path: str | Path) -> None:
        """Write the trace; open it in ui.perfetto.dev or chrome://tracing."""
        write_atomically(path, json.dumps(self.trace()).encode())


@dataclass(slots=True)
class Recorder:
    """Collects times while a session runs."""

    runs: list[float] = field(default_factory=list)
    stepwise_runs: list[float] = field(default_factory=list)
    steps: list[tuple[Step, int]] = field(default_factory=list)
    spans: list[list[tuple[float, float]]] = field(default_factory=list)
    parts: Parts = WHOLE
    joined: bool = False
    _origin: float = 0.0

    @contextmanager
    def whole_run(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self.runs.append(perf_counter() - start)

    @contextmanager
    def stepwise_run(self) -> Iterator[None]:
        """Around a run whose segments :meth:`execute` executes."""
        self.steps = []
        self.spans.append([])
        self._origin = perf_counter()
        yield
        self.stepwise_runs.append(perf_counter() - self._origin)

    def execute(self, bound: Bound, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run one segment, of a batch in parts the first part and what follows all of them, noting
        when each step starts and ends.
        """
        if isinstance(bound, JoinedExecutable):
            self.joined = True
            self.execute(bound.parts, feeds)
            return self._execute(bound.behind, bound.run_parts(feeds))
        if isinstance(bound, PartedExecutable):
            self.parts = bound.plan.parts
            return self._execute(bound.first, bound.part(feeds, 0), self.parts.rounds)
        return self._execute(bound, feeds)

    def _execute(
        self, executable: Executable, feeds: Mapping[str, Any], rounds: int = 1
    ) -> Mapping[str, Any]:
        spans = self.spans[-1]
        with executable.entered():
            executable.feed(feeds)
            for run in executable.step_runs:
                start = perf_counter()
                run()
                spans.append((start - self._origin, perf_counter() - self._origin))
            self.steps.extend((step, rounds) for step in executable.plan.steps)
            return executable.fetch()

    def profile(self) -> Profile:
        columns: Sequence[Sequence[tuple[float, float]]] = list(zip(*self.spans, strict=True))
        steps = tuple(
            StepProfile(
                step,
                tuple(start for start, _ in column),
                tuple(end - start for start, end in column),
                rounds,
            )
            for (step, rounds), column in zip(self.steps, columns, strict=True)
        )
        return Profile(steps, tuple(self.runs), tuple(self.stepwise_runs), self.parts, self.joined)


def _row(index: int, entry: StepProfile, total: float) -> list[str]:
    step = entry.step
    return [
        str(index),
        step.node.name,
        step.node.op.kind,
        " ".join(map(shape_text, step.types)) or "-",
        step.choice.backend,
        step.choice.scheme,
        seconds_text(entry.predicted),
        seconds_text(entry.best),
        seconds_text(entry.median),
        f"{100 * entry.median / total:.1f}%" if total else "-",
    ]


def _event(entry: StepProfile, run: int, origin: float, tid: int) -> dict[str, Any]:
    """A complete event; times in microseconds."""
    step = entry.step
    return {
        "ph": "X",
        "name": step.node.name,
        "cat": step.node.op.kind,
        "pid": 0,
        "tid": tid,
        "ts": (origin + entry.starts[run]) * 1e6,
        "dur": entry.seconds[run] * 1e6,
        "args": {
            "run": run,
            "scheme": step.choice.scheme,
            "config": config_text(step.choice.config),
            "output": " ".join(map(shape_text, step.types)),
            "predicted": seconds_text(entry.predicted),
            "workspace": nbytes_text(step.choice.cost.workspace_nbytes),
        },
    }
