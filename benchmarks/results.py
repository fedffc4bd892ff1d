"""Results as data: what one engine took for one case, kept as JSON, and how engines compare."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.engines import is_ours
from benchmarks.models import CONVOLUTIONAL
from benchmarks.startup import Startup
from mnnpy.runtime.files import write_atomically

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Case:
    """What is run: ``sequence`` is a number of tokens, None for networks that take pictures."""

    model: str
    batch: int = 1
    sequence: int | None = None

    def __str__(self) -> str:
        tokens = "" if self.sequence is None else f", {self.sequence} tokens"
        return f"{self.model}{tokens}" + (f", batch {self.batch}" if self.batch > 1 else "")


@dataclass(frozen=True, slots=True)
class Result:
    """One engine on one case.

    Parameters
    ----------
    max_error : max|d| / max|reference| against the reference engine; None where that is missing.
    predicted_ms : what our plan expected; None for peers.
    startup : None where it was not measured.
    """

    model: str
    threads: int
    batch: int
    sequence: int | None
    engine: str
    best_ms: float
    median_ms: float
    rounds: int
    max_error: float | None = None
    predicted_ms: float | None = None
    startup: Startup | None = None

    @property
    def case(self) -> Case:
        return Case(self.model, self.batch, self.sequence)


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write the list as JSON, whole or not at all."""
    data = [asdict(result) for result in results]
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def read_results(path: Path) -> list[Result]:
    """What :func:`write_results` wrote."""
    found = []
    for row in json.loads(path.read_text()):
        startup = row.pop("startup")
        found.append(Result(**row, startup=None if startup is None else Startup(**startup)))
    return found


class Comparison:
    """Best times by case, number of threads and engine."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._best = {(r.case, r.threads, r.engine): r.best_ms for r in results}
        self.threads = ordered(threads for _, threads, _ in self._best)
        self.engines = ordered(engine for _, _, engine in self._best)
        self.ours = [engine for engine in self.engines if is_ours(engine)]
        self.peers = [engine for engine in self.engines if not is_ours(engine)]

    def cases(self, threads: int) -> list[Case]:
        return ordered(case for case, t, _ in self._best if t == threads)

    def best(self, case: Case, threads: int, engine: str) -> float | None:
        """Milliseconds; None where it was not measured."""
        return self._best.get((case, threads, engine))

    def best_peer(self, case: Case, threads: int) -> float | None:
        """Milliseconds of the fastest peer."""
        times = (self.best(case, threads, peer) for peer in self.peers)
        return min((time for time in times if time is not None), default=None)

    def speed_up(
        self, case: Case, threads: int, engine: str, peer: str | None = None
    ) -> float | None:
        """The peer's time (the best peer's where none is named) over that of an engine of ours."""
        mine = self.best(case, threads, engine)
        named = None if peer is None else self.best(case, threads, peer)
        theirs = self.best_peer(case, threads) if peer is None else named
        return None if mine is None or theirs is None else theirs / mine

    def mean_speed_up(self, threads: int, engine: str, peer: str | None = None) -> float | None:
        """Geometric mean over the convolutional networks at batch 1; None where there are none."""
        cases = [c for c in self.cases(threads) if c.model in CONVOLUTIONAL and c.batch == 1]
        found = (self.speed_up(case, threads, engine, peer) for case in cases)
        known = [ratio for ratio in found if ratio is not None]
        return geometric_mean(known) if known else None


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n positive numbers. Raises ``ValueError`` on none."""
    if not values:
        raise ValueError("the geometric mean of no values")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def ordered(values: Iterable[_T]) -> list[_T]:
    """Without repetitions, as they were met."""
    return list(dict.fromkeys(values))
