"""Timing: engines in turn on the same inputs, and how fast the machine can multiply at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, sleep

import numpy as np

LEAST_ROUNDS = 5
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
    seconds : budget; no new round begins behind it, once there were five.

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


def measure_peak(threads: int, size: int = 512, repeats: int = 40) -> float:
    """GFLOP/s of fused multiply-adds in float32, taken from NumPy's product of two matrices.

    A good BLAS stays some 10% below what the units could do. One product takes a few milliseconds:
    long enough to get there, short enough to find a moment when nothing else runs.
    """
    from threadpoolctl import threadpool_limits

    a, b = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    product = np.empty_like(a)
    best = float("inf")
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(repeats):
            start = perf_counter()
            np.matmul(a, b, out=product)
            best = min(best, perf_counter() - start)
    return 2 * size**3 / best / 1e9
