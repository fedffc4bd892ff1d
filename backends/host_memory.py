"""Host memory, as the CPU backends share it."""

from __future__ import annotations

import math
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

from mnnpy.runtime.graph.types import Array, DType

ALIGNMENT = 64

_HUGE_PAGE = 1 << 21
_CHUNK_NBYTES = 1 << 24

_chunk: list[Array] = []
"""What is left of the chunk that small arrays are cut from."""

_chunk_lock = Lock()


def aligned_bytes(nbytes: int) -> Array:
    """Uninitialised bytes that start at a cache line, in huge pages where the system has them.

    Small arrays share a chunk, which is given back when the last of them is gone.
    """
    room = -(-nbytes // ALIGNMENT) * ALIGNMENT
    if room > _CHUNK_NBYTES // 4:
        return _fresh(room)[:nbytes]
    with _chunk_lock:
        left = _chunk[0] if _chunk and len(_chunk[0]) >= room else _fresh(_CHUNK_NBYTES)
        _chunk[:] = [left[room:]]
    return left[:nbytes]


def _fresh(nbytes: int) -> Array:
    """Bytes from a huge page on: streams of weights run up to twice as fast as over small pages.

    NumPy asks for huge pages for whatever takes 4 MB.
    """
    raw = np.empty(nbytes + _HUGE_PAGE, dtype=np.uint8)
    start = -raw.ctypes.data % _HUGE_PAGE
    return raw[start : start + nbytes]


def array_view(arena: Array, offset: int, shape: tuple[int, ...], dtype: DType) -> Array:
    """An array over part of a byte array."""
    nbytes = math.prod(shape) * dtype.itemsize
    return arena[offset : offset + nbytes].view(dtype).reshape(shape)


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_OURS = 4
"""A program finds about a quarter of the last cache for itself: others use it, and what is written
next pushes out what was written last."""


@cache
def cache_nbytes() -> int | None:
    """What of the last cache keeps tensors from one step to the next; None where nobody tells."""
    found = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text().strip().removesuffix("K")) << 10)
    return max(found) // _OURS if found else None


@cache
def processor_name() -> str:
    """What Linux calls the processor; elsewhere its architecture."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


class HostMemory:
    """The memory half of a backend whose kernels run on host arrays."""

    def allocate(self, nbytes: int) -> Array:
        return aligned_bytes(nbytes)

    def upload(self, array: Array) -> Array:
        return np.asarray(array, order="C")  # What NumPy evaluated may lie transposed.

    def view(self, arena: Array, offset: int, shape: tuple[int, ...], dtype: DType) -> Array:
        return array_view(arena, offset, shape, dtype)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(target, source)

    def to_host(self, array: Array) -> Array:
        return array
