"""What the figures depend on: the machine, its state and the versions of what runs on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version

from benchmarks.engines import ENGINES
from benchmarks.peak import measure_peak
from mnnpy.backends.host_memory import processor_name, usable_cores

_PACKAGES = ("mnnpy", "numpy", "numba", "onnxruntime", "openvino", "MNN", "torch")


def machine_facts(engines: Iterable[str]) -> list[str]:
    """Lines for the head of a page."""
    load, cores = os.getloadavg()[0], usable_cores()
    peaks = ", ".join(f"{measure_peak(n):.0f} on {n} thread(s)" for n in sorted({1, cores}))
    return [
        f"{date.today()}: {processor_name()}, {cores} cores; {platform.system()}, "
        f"Python {platform.python_version()}",
        f"load of the machine by others at the start: {load:.1f}"
        + (" (not idle: trust ratios, not times)" if load > 0.3 else ""),
        f"float32 multiply-adds in registers alone reach {peaks} (GFLOP/s)",
        "versions: " + ", ".join(f"{name} {v}" for name in _PACKAGES if (v := _version(name))),
        *(f"{name}: {ENGINES[name].settings}" for name in engines),
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
