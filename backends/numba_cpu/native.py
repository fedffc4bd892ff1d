"""Bound native kernels, and programs that walk through all of them in one call."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.walking import (
    BOARD,
    CONDITION,
    MUTEX,
    lead_code,
    rouse_code,
    serve_code,
    walk_code,
)
from mnnpy.runtime.contracts import Run
from mnnpy.runtime.graph.types import Array

_PATIENCE = 300_000
"""Glances at the board before a worker falls asleep: about a third of a millisecond."""


def address_of(array: Array) -> int:
    """Where the array's first element lies."""
    return int(array.__array_interface__["data"][0])


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
        addresses = (ctypes.c_void_p * len(arrays))(*map(address_of, arrays))
        return NativeCall(address, addresses, units, tuple(arrays))

    def __call__(self) -> None:
        """All of the work, on this thread."""
        NativeProgram([self], 1)()

    def mover(self, bound: Array) -> Callable[[Array], None]:
        """What makes the kernel use another array in place of ``bound``, or of parts of it."""
        start = address_of(bound)
        inside = range(start, start + bound.nbytes)
        places = [(i, p - start) for i, p in enumerate(self.pointers) if p and p in inside]

        def move(array: Array) -> None:
            there = address_of(array)
            for index, offset in places:
                self.pointers[index] = there + offset

        return move


@dataclass(frozen=True, slots=True, eq=False)
class NativeSequence:
    """Native calls that wait for each other, as one step."""

    calls: tuple[NativeCall, ...]

    def __call__(self) -> None:
        """All of the work, on this thread."""
        NativeProgram([self], 1)()

    def mover(self, bound: Array) -> Callable[[Array], None]:
        """As :meth:`NativeCall.mover`, for all calls."""
        movers = [call.mover(bound) for call in self.calls]

        def move(array: Array) -> None:
            for mover in movers:
                mover(array)

        return move


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
        self._job = address_of(self._table), len(self._table), address_of(self._arrived)
        self._team = _team(threads, os.getpid()) if threads > 1 else None

    def expect(self) -> None:
        if self._team is not None:
            self._team.rouse()

    def __call__(self) -> None:
        table, steps, arrived = self._job
        if self._team is None:
            _walk()(table, steps, 0, 1, arrived)
        else:
            self._team.run(table, steps, arrived)
        for check in self._checks:
            check()


def _calls(step: NativeCall | NativeSequence) -> tuple[NativeCall, ...]:
    return step.calls if isinstance(step, NativeSequence) else (step,)


class _Team:
    """Threads that watch for jobs for a moment after each, then sleep until they are woken.

    Workers never come back from generated code, so that no job waits for Python's interpreter.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._board = np.zeros(BOARD, dtype=np.int64)
        self._start = start = address_of(self._board)
        _libc().pthread_mutex_init(ctypes.c_void_p(start + 8 * MUTEX), None)
        _libc().pthread_cond_init(ctypes.c_void_p(start + 8 * CONDITION), None)
        self._workers = [
            threading.Thread(
                target=_serve(),
                args=(start, index, threads, _PATIENCE),
                name=f"mnnpy-{index}",
                daemon=True,
            )
            for index in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()
        self._avoided = -1

    def rouse(self) -> None:
        """Have the workers watch for a job that is about to come."""
        _rouse()(self._start)

    def run(self, table: int, steps: int, arrived: int) -> None:
        with self._lock:
            self._keep_off(_current_core())
            _lead()(self._start, self.threads, table, steps, arrived)

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


def _current_core() -> int:
    """The core that this thread runs on; -1 where the system does not say."""
    return int(_libc().sched_getcpu()) if sys.platform == "linux" else -1


@cache
def _libc() -> ctypes.PyDLL:
    """The C library; calls are too short to let other threads of Python run meanwhile."""
    return ctypes.PyDLL(None)


@cache
def _team(threads: int, process: int) -> _Team:
    """One team per size and process: threads do not survive a fork."""
    return _Team(threads)


@cache
def _walk() -> Callable[..., None]:
    return _native(walk_code(), "walk", "pqqqp")


@cache
def _lead() -> Callable[..., None]:
    return _native(lead_code(), "lead", "pqpqp")


@cache
def _rouse() -> Callable[..., None]:
    return _native(rouse_code(), "rouse", "p")


@cache
def _serve() -> Callable[..., None]:
    return _native(serve_code(), "serve", "pqqq")


def _native(code: str, name: str, parameters: str) -> Callable[..., None]:
    """A function of a module; parameters are ``p`` for addresses and ``q`` for numbers."""
    kinds = {"p": ctypes.c_void_p, "q": ctypes.c_int64}
    kind = ctypes.CFUNCTYPE(None, *(kinds[letter] for letter in parameters))
    return kind(host_jit().address(code, name))
