"""How fast the machine can multiply and add at all: the ceiling of every product."""

from __future__ import annotations

import numpy as np

from benchmarks.step_times import clocked

from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.native import NativeCall

_SUMS = 12
"""Independent sums: they hide the latency of the units, and with their factors still fit into the
16 registers of the smallest instruction set."""
_UNROLLED = 8
_TURNS = 20_000
_LAUNCHES = 4


def measure_peak(threads: int, repeats: int = 30, turns: int = _TURNS) -> float:
    """GFLOP/s of float32 multiply-adds in registers, without any memory.

    Parameters
    ----------
    repeats : runs of about half a millisecond in each of four programs, short enough to find a
        moment when nothing else runs; the best counts.
    turns : of the loop, each of 96 vector multiply-adds.
    """
    jit = host_jit()
    lanes = jit.cpu.lanes
    starts = np.linspace(1, 2, _SUMS, dtype=np.float32)
    factors = np.array([0.5, 1.0], np.float32)  # Sums approach 2: no overflow, no denormals.
    results = np.empty((threads, lanes), np.float32)
    address = jit.address(multiply_adds(lanes, turns), "run")
    call = NativeCall.bind(address, [starts, factors, results], threads)
    timed = clocked([call] * repeats, threads)
    best = min(float(timed().min()) for _ in range(_LAUNCHES))
    return 2 * lanes * _SUMS * _UNROLLED * turns * threads / best / 1e9


def multiply_adds(lanes: int, turns: int) -> str:
    """LLVM IR of ``sum = sum * a + b`` on twelve sums; a unit of work stores what they add up to.

    Its pointers are those of the sums' starts, of (a, b), and of a vector for each unit.
    """
    module = Module(lanes)
    f = Function(module, "run", [("ptr", "pointers"), ("i64", "begin"), ("i64", "end")])
    starts, factors, results = (f.argument("%pointers", index) for index in range(3))
    a, b = f.broadcast(factors), f.broadcast(f.at(factors, 1))
    first = [f.broadcast(f.at(starts, index)) for index in range(_SUMS)]

    def turn(_: Value, *sums: Value) -> list[Value]:
        found = list(sums)
        for _ in range(_UNROLLED):
            found = [f.fma(value, a, b) for value in found]
        return found

    def unit(index: Value) -> None:
        total, *others = f.loop(turns, turn, [(f.vector, value) for value in first])
        for value in others:
            total = f.arithmetic("fadd", total, value)
        f.store_vector(total, f.at(results, f.mul(index, lanes)))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
