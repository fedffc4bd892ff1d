"""Timing product tiles, once per machine: what fits the registers, with data in near cache."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from logging import getLogger
from math import inf
from pathlib import Path
from time import perf_counter

from mnnpy.backends.host_memory import aligned_bytes, array_view
from mnnpy.backends.numba_cpu.ir import Function, Module
from mnnpy.backends.numba_cpu.jit import Cpu, Jit, host_jit
from mnnpy.backends.numba_cpu.object_cache import distrust
from mnnpy.backends.numba_cpu.products import LINE, Terms, product_tile
from mnnpy.backends.numba_cpu.tiles import shipped_rates
from mnnpy.runtime.coefficients import cache_directory
from mnnpy.runtime.devices import TileRates
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.types import FLOAT32

_LOG = getLogger("mnnpy")

_HEIGHTS = (1, 4, 8, 16)
_MOST_VECTORS = 4
_CHANNELS = 128
_APART = 21 * LINE
_ROUNDS = 60
_ROUND_MACS = 40_000
"""Vector multiply-adds of one timing: some ten microseconds."""
_SAME = 0.03
"""A rate that changes by less is not replaced, so that timing anew changes no plan by noise."""


def timed_shapes(cpu: Cpu) -> tuple[tuple[int, int], ...]:
    """(rows, vectors) whose sums fit the registers, with a term's weights and one factor.

    Heights between them are interpolated; the tallest that fits is one of them.
    """
    shapes = []
    for vectors in range(1, _MOST_VECTORS + 1):
        tallest = (cpu.registers - 1) // vectors - 1
        shapes += [(rows, vectors) for rows in sorted({min(h, tallest) for h in _HEIGHTS})]
    return tuple(shapes)


def machine_rates() -> TileRates:
    """This machine's rates: kept, or timed and kept now; the shipped ones where nothing is kept."""
    jit = host_jit()
    path = rates_path(jit)
    found = _kept(path, jit.cpu)
    if found is None and _writable(path.parent):
        _LOG.info("timing product tiles, once for this machine")
        found = _keep(path, time_tiles(jit), jit.cpu)
    return found or shipped_rates(jit.cpu.lanes)


def renew_rates() -> tuple[Path, TileRates]:
    """Time this machine's tiles anew; where they are kept, and their rates."""
    jit = host_jit()
    path = rates_path(jit)
    rates = _settled(_kept(path, jit.cpu) or (), time_tiles(jit))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps(rates).encode())
    return path, rates


def rates_path(jit: Jit) -> Path:
    """A file per processor and version of the tile's code."""
    key = jit.key(timing_code(jit.cpu.lanes, [(2, 2)]))
    return cache_directory() / "tiles" / f"{jit.cpu.name}-{key[:16]}.json"


def time_tiles(jit: Jit) -> TileRates:
    """Multiply-adds per second of every shape: the best of rounds that visit all of them."""
    lanes, shapes = jit.cpu.lanes, timed_shapes(jit.cpu)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    run = kind(jit.address(timing_code(lanes, shapes), "run"))
    # Starts differ modulo a page: loads would wait for stores to addresses that look alike.
    floats = _CHANNELS * lanes * max(*_HEIGHTS, _MOST_VECTORS) + _APART
    arrays = [array_view(aligned_bytes(4 * floats), 0, (floats,), FLOAT32) for _ in range(3)]
    for array in arrays:
        array[...] = 0
    pointers = (ctypes.c_void_p * 3)(*(array.ctypes.data for array in arrays))
    seconds = dict.fromkeys(shapes, inf)
    for _ in range(_ROUNDS):
        for index, (rows, vectors) in enumerate(shapes):
            turns = max(1, _ROUND_MACS // (_CHANNELS * rows * vectors))
            start = perf_counter()
            run(pointers, index, turns)
            seconds[rows, vectors] = min(seconds[rows, vectors], (perf_counter() - start) / turns)
    return tuple((r, v, _CHANNELS * r * v * lanes / best) for (r, v), best in seconds.items())


def timing_code(lanes: int, shapes: Sequence[tuple[int, int]]) -> str:
    """LLVM IR of ``run((x, w, y), shape, turns)``: so many turns of one of the shapes.

    A tile is that of a 1x1 convolution: rows are neighbours in a channel-blocked picture.
    """
    module = Module(lanes)
    blocks, plane = _CHANNELS // lanes, max(_HEIGHTS) * lanes
    terms = Terms(blocks, plane, lanes, lanes, ((0,), (0,)), lanes)
    f = Function(module, "run", [("ptr", "args"), ("i64", "shape"), ("i64", "turns")])
    x, w, y = (("ptr", f.argument("%args", index)) for index in range(3))
    for index, (rows, vectors) in enumerate(shapes):
        name, pitch = f"tile{rows}x{vectors}", (lanes, plane)
        product_tile(module, name, rows, vectors, terms, pitch, False, lambda f, s, r, v: s)

        def turns(name: str = name) -> None:
            f.loop("%turns", lambda _: f.call(name, x, w, w, y))

        f.when(f.compare("eq", "%shape", index), turns)
    f.finish()
    return str(module)


def _kept(path: Path, cpu: Cpu) -> TileRates | None:
    """What a file says; None where there is none, or not what is timed on such a processor."""
    with suppress(OSError, ValueError, TypeError):
        if distrust(path.parent.stat()) is None:
            entries = json.loads(path.read_bytes())
            rates = tuple((int(rows), int(vectors), float(rate)) for rows, vectors, rate in entries)
            fits = tuple((rows, vectors) for rows, vectors, _ in rates) == timed_shapes(cpu)
            if fits and all(0 < rate < inf for _, _, rate in rates):
                return rates
    return None


def _writable(directory: Path) -> bool:
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return distrust(directory.stat()) is None and os.access(directory, os.W_OK)
    return False


def _keep(path: Path, rates: TileRates, cpu: Cpu) -> TileRates | None:
    """Keep rates; what another process has kept meanwhile is right for both."""
    found = _kept(path, cpu)
    if found is None:
        with suppress(OSError):
            write_atomically(path, json.dumps(rates).encode())
            found = rates
    return found


def _settled(before: TileRates, rates: TileRates) -> TileRates:
    """Rates of now, those of before where they are about the same."""
    known = {(rows, vectors): rate for rows, vectors, rate in before}
    return tuple(
        (r, v, known[r, v] if abs(known.get((r, v), inf) / rate - 1) <= _SAME else rate)
        for r, v, rate in rates
    )
