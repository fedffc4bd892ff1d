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
from mnnpy.runtime.contracts import Run
from mnnpy.runtime.graph.types import Array

_WALK = """
declare i32 @sched_yield()

define void @walk(ptr %table, i64 %steps, i64 %thread, i64 %threads, ptr %arrived) nounwind {
entry:
  %next_thread = add i64 %thread, 1
  %some = icmp ne i64 %steps, 0
  br i1 %some, label %step, label %exit
step:
  %i = phi i64 [ 0, %entry ], [ %following, %done ]
  %base = mul i64 %i, 3
  %p0 = getelementptr i64, ptr %table, i64 %base
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %kernel = load ptr, ptr %p0
  %arguments = load ptr, ptr %p1
  %units = load i64, ptr %p2
  %low = mul i64 %units, %thread
  %begin = udiv i64 %low, %threads
  %high = mul i64 %units, %next_thread
  %end = udiv i64 %high, %threads
  %any = icmp ult i64 %begin, %end
  br i1 %any, label %work, label %arrive
work:
  call void %kernel(ptr %arguments, i64 %begin, i64 %end)
  br label %arrive
arrive:
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %done, label %meet
meet:
  %old = atomicrmw add ptr %arrived, i64 1 acq_rel
  %turn = add i64 %i, 1
  %wanted = mul i64 %turn, %threads
  br label %wait
wait:
  %spins = phi i64 [ 0, %meet ], [ %more, %wait_on ]
  %now = load atomic i64, ptr %arrived acquire, align 8
  %there = icmp uge i64 %now, %wanted
  br i1 %there, label %done, label %patient
patient:
  %long = icmp ugt i64 %spins, 300000
  br i1 %long, label %give_way, label %wait_on
give_way:
  %ignored = call i32 @sched_yield()
  br label %wait_on
wait_on:
  %more = add i64 %spins, 1
  br label %wait
done:
  %following = add i64 %i, 1
  %again = icmp ult i64 %following, %steps
  br i1 %again, label %step, label %exit
exit:
  ret void
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class NativeCall:
    """A kernel ``(pointers, begin, end)`` bound to arrays; its work is ``units`` equal pieces."""

    address: int
    pointers: ctypes.Array[ctypes.c_void_p]
    units: int
    arrays: tuple[Array, ...]

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
        self._arrived = np.zeros(8, dtype=np.int64)
        self._team = _team(threads) if threads > 1 else None

    def __call__(self) -> None:
        table, arrived = self._table.ctypes.data, self._arrived.ctypes.data
        if self._team is None:
            _walk()(table, len(self._table), 0, 1, arrived)
            return
        self._arrived[0] = 0
        self._team.run(table, len(self._table), arrived)


def _calls(step: NativeCall | NativeSequence) -> tuple[NativeCall, ...]:
    return step.calls if isinstance(step, NativeSequence) else (step,)


class _Team:
    """Threads that sleep until there is a program to walk."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._job: tuple[int, int, int] = (0, 0, 0)
        self._start = [threading.Semaphore(0) for _ in range(threads - 1)]
        self._finished = threading.Semaphore(0)
        self._workers = [
            threading.Thread(
                target=self._work, args=(index,), name=f"mnnpy-{index + 1}", daemon=True
            )
            for index in range(threads - 1)
        ]
        for worker in self._workers:
            worker.start()
        self._avoided = -1

    def run(self, table: int, steps: int, arrived: int) -> None:
        with self._lock:
            self._job = (table, steps, arrived)
            self._keep_off(_current_core())
            for semaphore in self._start:
                semaphore.release()
            _walk()(table, steps, 0, self.threads, arrived)
            for _ in self._start:
                self._finished.acquire()

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
        walk = _walk()
        while True:
            self._start[index].acquire()
            table, steps, arrived = self._job
            walk(table, steps, index + 1, self.threads, arrived)
            self._finished.release()


def _current_core() -> int:
    """The core that this thread runs on; -1 where the system does not say."""
    return int(_libc().sched_getcpu()) if sys.platform == "linux" else -1


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@cache
def _team(threads: int) -> _Team:
    """One team per size and process."""
    return _Team(threads)


@cache
def _walk() -> Callable[..., None]:
    kind = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )
    return kind(host_jit().address(_WALK, "walk"))
