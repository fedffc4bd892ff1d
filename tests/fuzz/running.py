"""Running cases in a process with limits, and what becomes of each."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from mnnpy.runtime.errors import MnnpyError
from tests.fuzz.cases import Case, Kind, feeds_for, make_case, read_seeds

Attempt: TypeAlias = Callable[[Case], str]
"""Does what a case asks for; may say something about it."""

BAD = ("untyped", "slow", "hang", "crash")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a case may take.

    Parameters
    ----------
    seconds : of processor time.
    patience : seconds of waiting, which a busy machine stretches, until a case is said to hang.
    nbytes : by which the worker may grow.
    """

    seconds: float = 5.0
    patience: float = 30.0
    nbytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case came to.

    Parameters
    ----------
    kind : ``result``, ``typed`` (an error of ours), ``memory`` (a typed refusal of what goes beyond
        the limit), or one of ``BAD``.
    seconds : of processor time.
    nbytes : by which the process has grown at most, up to this case.
    """

    kind: str
    detail: str
    seconds: float = 0.0
    nbytes: int = 0


@dataclass(slots=True)
class Report:
    """Counts by outcome, and what must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: dict[int, Outcome] = field(default_factory=dict)
    longest: float = 0.0
    nbytes: int = 0

    def add(self, number: int, outcome: Outcome) -> None:
        label = f"typed {outcome.detail}" if outcome.kind == "typed" else outcome.kind
        self.counts[label] += 1
        if outcome.kind in BAD:
            self.bad[number] = outcome
        self.longest = max(self.longest, outcome.seconds)
        self.nbytes = max(self.nbytes, outcome.nbytes)


def run_case(case: Case, backend: str = "numpy") -> str:
    """Load the model and run it."""
    import mnnpy

    session = mnnpy.Session(case.model, backend=backend)
    feeds = case.feeds
    if case.damaged == "models":
        feeds = feeds_for(session.graph, case.feeds)
        if feeds is None:
            return "too large to run"
    session.run(feeds)
    return ""


def run_cases(
    seeds: Path,
    kind: Kind,
    numbers: Iterable[int],
    attempt: Attempt = run_case,
    limits: Limits | None = None,
) -> Report:
    """Run cases one after another in one worker; a worker that dies is replaced."""
    limits = limits or Limits()
    report = Report()
    worker: _Worker | None = None
    try:
        for number in numbers:
            worker = worker or _Worker(seeds, kind, attempt, limits)
            outcome = worker.run(number)
            report.add(number, outcome)
            if outcome.kind in ("hang", "crash"):
                worker.end()
                worker = None
    finally:
        if worker is not None:
            worker.end()
    return report


class _Worker:
    """A process that runs cases by their numbers."""

    def __init__(self, seeds: Path, kind: Kind, attempt: Attempt, limits: Limits) -> None:
        context = multiprocessing.get_context("spawn")
        self._patience = limits.patience
        self._ours, theirs = context.Pipe()
        arguments = (theirs, seeds, kind, attempt, limits)
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        theirs.close()
        self._ours.recv()

    def run(self, number: int) -> Outcome:
        self._ours.send(number)
        if not self._ours.poll(self._patience):
            return Outcome("hang", f"no answer within {self._patience:g} s", self._patience)
        try:
            outcome: Outcome = self._ours.recv()
        except EOFError:
            self._process.join()
            return Outcome("crash", f"the process ended with {self._process.exitcode}")
        return outcome

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _serve(
    connection: Connection, seeds: Path, kind: Kind, attempt: Attempt, limits: Limits
) -> None:
    """The worker: limit memory to what it is now and the allowance, then answer numbers."""
    warnings.simplefilter("ignore")
    logging.getLogger("mnnpy").setLevel(logging.ERROR)
    known = read_seeds(seeds)
    for number in range(20):
        _judge(run_case, make_case(known, "feeds", -1 - number))
    limit = _status_nbytes("VmSize") + limits.nbytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
    before = _status_nbytes("VmRSS")
    connection.send("ready")
    while True:
        case = make_case(known, kind, connection.recv())
        start = time.process_time()
        outcome, detail = _judge(attempt, case)
        seconds = time.process_time() - start
        if seconds > limits.seconds:
            outcome, detail = "slow", f"{seconds:.1f} s, then {outcome} {detail}"
        connection.send(Outcome(outcome, detail, seconds, _status_nbytes("VmHWM") - before))


def _judge(attempt: Attempt, case: Case) -> tuple[str, str]:
    """Kind and detail of what an attempt came to."""
    try:
        return "result", attempt(case)
    except MnnpyError as error:
        return "memory" if _for_memory(error) else "typed", type(error).__name__
    except Exception as error:
        return "untyped", f"{error!r} at {_place(error)}"


def _for_memory(error: BaseException | None) -> bool:
    """Whether lack of memory is behind an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def _status_nbytes(key: str) -> int:
    """One of the numbers that Linux keeps of a process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
