"""How fast the machine can multiply and add, and read its memory: the ceilings of products."""

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
_SUMS_READ = 8
_LAUNCHES = 4
_PIECE_NBYTES = 64 << 10
_PAGE_NBYTES = 4096


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


def measure_bandwidth(threads: int, nbytes: int = 256 << 20, repeats: int = 8) -> float:
    """GB/s of reading memory that is larger than every cache, from its start to its end."""
    jit = host_jit()
    lanes = jit.cpu.lanes
    units = nbytes // _PIECE_NBYTES
    source = np.zeros(units * _PIECE_NBYTES // 4, np.float32)
    source[:: _PAGE_NBYTES // 4] = 1  # Each page gets memory of its own.
    results = np.empty((units, lanes), np.float32)
    call = NativeCall.bind(jit.address(reads(lanes), "run"), [source, results], units)
    seconds = float(clocked([call] * repeats, threads)().min())
    return source.nbytes / seconds / 1e9


def multiply_adds(lanes: int, turns: int) -> str:
    """LLVM IR of ``sum = sum * a + b`` on twelve sums; a unit of work stores what they add up to.

    Its pointers are those of the sums' starts, of (a, b), and of a vector for each unit.
    """
    module = Module(lanes)
    f = Function(module, "run", [("ptr", "pointers"), ("i64", "begin"), ("i64", "end")])
    starts, factors, results = (f.argument("%pointers", index) for index in range(3))
    a, b = f.broadcast(factors), f.broadcast(f.at(factors, 1))
    first = [f.broadcast(f.at(starts, index)) for index in range(_SUMS)]

    def turn(index: Value, *sums: Value) -> list[Value]:
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


def reads(lanes: int) -> str:
    """LLVM IR that sums up memory; a unit of work is 64 KiB and stores a vector.

    Its pointers are those of the memory, and of a vector for each unit.
    """
    module = Module(lanes)
    f = Function(module, "run", [("ptr", "pointers"), ("i64", "begin"), ("i64", "end")])
    source, results = (f.argument("%pointers", index) for index in range(2))
    floats, step = _PIECE_NBYTES // 4, _SUMS_READ * lanes

    def unit(index: Value) -> None:
        piece = f.at(source, f.mul(index, floats))

        def turn(i: Value, *sums: Value) -> list[Value]:
            place = f.at(piece, f.mul(i, step))
            loads = [f.load_vector(f.at(place, k * lanes)) for k in range(_SUMS_READ)]
            return [f.arithmetic("fadd", a, b) for a, b in zip(sums, loads, strict=True)]

        start = [(f.vector, f.constant(0.0))] * _SUMS_READ
        total, *others = f.loop(floats // step, turn, start)
        for value in others:
            total = f.arithmetic("fadd", total, value)
        f.store_vector(total, f.at(results, f.mul(index, lanes)))

    f.loop("%end", unit, start="%begin")
    f.finish()
    return str(module)
