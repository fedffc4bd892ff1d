"""Times of the steps within a run as it is: a clock that is read between two kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mnnpy.backends.numba_cpu.ir import Function, Module
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.native import NativeCall, NativeProgram, NativeSequence
from mnnpy.runtime.contracts import Run
from mnnpy.runtime.execution import Executable

Timed: TypeAlias = Callable[[], NDArray[np.float64]]
"""Runs some steps; their seconds."""


def time_steps(
    executable: Executable, feeds: Mapping[str, Any], threads: int, repeats: int
) -> list[float]:
    """Least seconds of every step over repeated runs.

    Generated kernels run as they do in the session: one walk over all of them, on all threads, with
    a clock between every two. A step's time includes the wait for the slowest thread.

    Parameters
    ----------
    feeds : checked inputs by name.
    repeats : runs, after one that is not counted.
    """
    timed = [
        clocked(runs, threads) if _is_native(runs) else _single(runs)
        for _, group in groupby(executable.step_runs, key=lambda run: _is_native([run]))
        for runs in [list(group)]
    ]
    best = np.full(len(executable.step_runs), np.inf)
    with executable.entered():
        for repeat in range(repeats + 1):
            executable.feed(feeds)
            found = np.concatenate([part() for part in timed])
            if repeat:
                best = np.minimum(best, found)
    return [float(seconds) for seconds in best]


def _is_native(runs: list[Run]) -> TypeGuard[list[NativeCall | NativeSequence]]:
    """Whether all are generated kernels."""
    return all(isinstance(run, NativeCall | NativeSequence) for run in runs)


def clocked(runs: Sequence[NativeCall | NativeSequence], threads: int) -> Timed:
    """Generated kernels one after another, with a clock between every two."""
    readings = np.zeros((len(runs) + 1, 2), np.int64)
    address = host_jit().address(_clock(), "run")
    clocks = [NativeCall.bind(address, [reading], 1) for reading in readings]
    between = [step for pair in zip(runs, clocks[1:], strict=True) for step in pair]
    program = NativeProgram([clocks[0], *between], threads)

    def timed() -> NDArray[np.float64]:
        program()
        seconds, nanoseconds = np.diff(readings, axis=0).T
        found: NDArray[np.float64] = seconds + 1e-9 * nanoseconds
        return found

    return timed


def _single(runs: Sequence[Run]) -> Timed:
    def timed() -> NDArray[np.float64]:
        readings = [time.perf_counter()]
        for run in runs:
            run()
            readings.append(time.perf_counter())
        return np.diff(readings)

    return timed


def _clock() -> str:
    """LLVM IR that writes (seconds, nanoseconds) to its only pointer."""
    module = Module(lanes=4)
    f = Function(module, "run", [("ptr", "pointers"), ("i64", "begin"), ("i64", "end")])
    module.declare("i32 @clock_gettime(i32, ptr)")
    reading = f.argument("%pointers", 0)
    f.emit(f"call i32 @clock_gettime(i32 {time.CLOCK_MONOTONIC}, ptr {reading})")
    f.finish()
    return str(module)
