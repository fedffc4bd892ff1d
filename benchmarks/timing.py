"""Timing: engines in turn on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, sleep

LEAST_ROUNDS = 3
SETTLING_SECONDS = 0.03
"""Longer than the worker threads of any engine keep spinning after a run (OpenBLAS: 26 ms)."""


def race(
    runs: Mapping[str, Callable[[], object]], threads: int, rounds: int = 20, seconds: float = 20.0
) -> dict[str, list[float]]:
    """Let all take turns, so that a drift of the machine hits all alike.

    A turn is one run that is not counted, which brings caches and threads back, and one that is.

    Parameters
    ----------
    threads : of each run; where there is more than one, a pause lets the workers of the turn
        before fall asleep.
    rounds : most turns of each.
    seconds : budget; no new round begins behind it, once there were three.

    Returns
    -------
    Seconds of each counted run, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    started = perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and perf_counter() - started > seconds:
            break
        for name, run in runs.items():
            if threads > 1:
                sleep(SETTLING_SECONDS)
            run()
            start = perf_counter()
            run()
            times[name].append(perf_counter() - start)
    return times
