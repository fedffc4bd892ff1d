"""Teams of threads: every unit is done once per run, in order, whoever calls and however often."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.native import NativeCall, NativeProgram

UNITS = 37


def counting(steps: int, threads: int) -> tuple[NativeProgram, np.ndarray]:
    """Step k turns k into k + 1 in every unit, and spoils a unit that step k - 1 left out."""
    counts = np.zeros(UNITS, dtype=np.float32)
    calls = [
        NativeCall.bind(host_jit().address(_increment(step), "run"), [counts], UNITS)
        for step in range(steps)
    ]
    return NativeProgram(calls, threads), counts


def _increment(expected: int) -> str:
    module = Module(4)
    f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
    counts = f.argument("%args", 0)

    def unit(index: Value) -> None:
        # The neighbour's count is that of the step before, or this one where it is done already.
        place = f.at(counts, index)
        seen = f.load(f.at(counts, f.sub(UNITS - 1, index)))
        late = f.emit(f"fcmp olt float {seen}, {float(expected)}")
        step = f.emit(f"select i1 {late}, float -1000.0, float 1.0")
        f.store(f.emit(f"fadd float {f.load(place)}, {step}"), place)

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_unit_once_and_steps_in_order(threads: int) -> None:
    program, counts = counting(20, threads)
    for _ in range(200):
        counts[...] = 0
        program()
        assert (counts == 20).all()


def test_those_that_sleep_wake() -> None:
    """Whether a call was announced, and however long ago."""
    program, counts = counting(5, 3)
    pauses = np.random.default_rng(0).choice([0, 1e-4, 3e-4, 1e-3], (200, 2))
    for before, after in pauses:
        time.sleep(before)
        if after:
            program.expect()
            time.sleep(after)
        counts[...] = 0
        program()
        assert (counts == 5).all()


def test_callers_take_turns() -> None:
    wrong = []

    def call() -> None:
        program, counts = counting(10, 2)
        for _ in range(100):
            counts[...] = 0
            program()
            if not (counts == 10).all():
                wrong.append(counts.copy())

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_threads_of_its_own() -> None:
    program, counts = counting(5, 2)
    program()
    child = os.fork()
    if child == 0:
        again, mine = counting(5, 2)
        again()
        os._exit(0 if (mine == 5).all() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (counts == 5).all()
