"""Bound native kernels, and programs that walk through all of them in one call."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.walking import (
    ARRIVED,
    ASLEEP,
    DONE,
    STEPS,
    TABLE,
    lead_code,
    publish_code,
    serve_code,
    walk_code,
)
from mnnpy.runtime.contracts import Run
from mnnpy.runtime.graph.types import Array

_PATIENCE = 100_000
"""Glances at the board before a worker falls asleep: about a tenth of a millisecond."""


@dataclass(frozen=True, slots=True, eq=False)
class NativeCall:
    """A kernel ``(pointers, begin, end)`` bound to arrays; its work is ``units`` equal pieces.

    Parameters
    ----------
    check : raises where the work has met what it cannot do; called when the program is done.
    """

    address: int
    pointers: ctypes.Array[ctypes.c_void_p]
    units: int
    arrays: tuple[Array, ...]
    check: Run | None = None

    @staticmethod
    def bind(address: int, arrays: Sequence[Array], units: int) -> NativeCall:
        """Keep the arrays alive and pass their addresses, in order."""
        addresses = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        return NativeCall(address, addresses, units, tuple(arrays))

    def __call__(self) -> None:
        """All of the work, on this thread."""
        NativeProgram([self], 1)()


@dataclass(frozen=True, slots=True, eq=False)
class NativeSequence:
    """Native calls that wait for each other, as one step."""

    calls: tuple[NativeCall, ...]

    def __call__(self) -> None:
        """All of the work, on this thread."""
        NativeProgram([self], 1)()


class NativeProgram:
    """Native calls one after another; every thread walks the list and takes its share of each."""

    def __init__(self, steps: Sequence[NativeCall | NativeSequence], threads: int) -> None:
        self.steps: Sequence[Run] = steps
        calls = [call for step in steps for call in _calls(step)]
        self._table = np.array(
            [(call.address, ctypes.addressof(call.pointers), call.units) for call in calls],
            dtype=np.int64,
        ).reshape(-1, 3)
        self._checks = [call.check for call in calls if call.check is not None]
        self._arrived = np.zeros(8, dtype=np.int64)
        self._team = _team(threads, os.getpid()) if threads > 1 else None

    def __call__(self) -> None:
        table, arrived = self._table.ctypes.data, self._arrived.ctypes.data
        if self._team is None:
            _walk()(table, len(self._table), 0, 1, arrived)
        else:
            self._arrived[0] = 0
            self._team.run(table, len(self._table), arrived)
        for check in self._checks:
            check()


def _calls(step: NativeCall | NativeSequence) -> tuple[NativeCall, ...]:
    return step.calls if isinstance(step, NativeSequence) else (step,)


class _Team:
    """Threads that watch for jobs for a moment after each, then sleep until they are woken."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._board = np.zeros(ASLEEP + 2 * threads, dtype=np.int64)
        self._wake = [threading.Semaphore(0) for _ in range(threads)]
        self._workers = [
            threading.Thread(target=self._work, args=(index,), name=f"mnnpy-{index}", daemon=True)
            for index in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()
        self._avoided = -1

    def run(self, table: int, steps: int, arrived: int) -> None:
        board = self._board
        with self._lock:
            self._keep_off(_current_core())
            board[TABLE], board[STEPS], board[ARRIVED], board[DONE] = table, steps, arrived, 0
            _publish()(board.ctypes.data, self.threads)
            try:
                for index in np.flatnonzero(board[ASLEEP + self.threads + 1 :]):
                    self._wake[index + 1].release()
            finally:
                _lead()(board.ctypes.data, self.threads)

    def _keep_off(self, core: int) -> None:
        """Keep the workers off the caller's core.

        Where all others are busy, Linux wakes a thread on the core of the one that wakes it, so
        that the two would take turns instead of running side by side.
        """
        if core == self._avoided or core < 0:
            return
        others = os.sched_getaffinity(0) - {core}
        for worker in self._workers:
            if others and worker.native_id is not None:
                os.sched_setaffinity(worker.native_id, others)
        self._avoided = core

    def _work(self, index: int) -> None:
        serve, seen = _serve(), 0
        while True:
            seen = serve(self._board.ctypes.data, index, self.threads, seen, _PATIENCE)
            self._wake[index].acquire()


def _current_core() -> int:
    """The core that this thread runs on; -1 where the system does not say."""
    return int(_libc().sched_getcpu()) if sys.platform == "linux" else -1


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@cache
def _team(threads: int, process: int) -> _Team:
    """One team per size and process: threads do not survive a fork."""
    return _Team(threads)


@cache
def _walk() -> Callable[..., None]:
    return _native(walk_code(), "walk", None, "pqqqp")


@cache
def _publish() -> Callable[..., None]:
    return _native(publish_code(), "publish", None, "pq")


@cache
def _lead() -> Callable[..., None]:
    return _native(lead_code(), "lead", None, "pq")


@cache
def _serve() -> Callable[..., int]:
    return _native(serve_code(), "serve", ctypes.c_int64, "pqqqq")


def _native(code: str, name: str, result: Any, parameters: str) -> Callable[..., Any]:
    """A function of a module; parameters are ``p`` for addresses and ``q`` for numbers."""
    kinds = {"p": ctypes.c_void_p, "q": ctypes.c_int64}
    kind = ctypes.CFUNCTYPE(result, *(kinds[letter] for letter in parameters))
    return kind(host_jit().address(code, name))
