"""Timing: engines in turn on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, sleep
from typing import TypeVar

LEAST_ROUNDS = 3
SETTLING_SECONDS = 0.03
"""Longer than the worker threads of any engine keep spinning after a run (OpenBLAS: 26 ms)."""


_K = TypeVar("_K")


def race(
    runs: Mapping[_K, Callable[[], object]],
    threads: int,
    rounds: int = 20,
    seconds: float = 20.0,
    counted: Mapping[_K, int] | None = None,
) -> dict[_K, list[float]]:
    """Let all take turns, so that a drift of the machine hits all alike.

    A turn is one run that is not counted, which brings caches and threads back, and some that are.

    Parameters
    ----------
    threads : of each run; where there is more than one, a pause lets the workers of the turn
        before fall asleep.
    rounds : most turns of each.
    seconds : budget; no new round begins behind it, once there were three.
    counted : runs of each that count in a turn; one where nothing is said.

    Returns
    -------
    Seconds of each counted run.
    """
    times: dict[_K, list[float]] = {key: [] for key in runs}
    started = perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and perf_counter() - started > seconds:
            break
        for key, run in runs.items():
            if threads > 1:
                sleep(SETTLING_SECONDS)
            run()
            for _ in range((counted or {}).get(key, 1)):
                start = perf_counter()
                run()
                times[key].append(perf_counter() - start)
    return times
