"""What an engine takes before its first answer: time and memory, in a process of its own.

Engines that share a process share libraries, allocators and page faults; a fresh one does not.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from benchmarks.engines import ENGINES, Arrays

_ROOT = Path(__file__).resolve().parents[1]
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Startup:
    """Of one fresh process.

    Parameters
    ----------
    create_ms : from an interpreter with NumPy to a session, with the engine's import.
    first_run_ms : the first run, which may still compile, pack or allocate.
    resident_mib : growth of the resident memory, with the weights, after the first run; None
        where the system does not tell.
    peak_mib : the most that it grew by until then.
    cold_ms : ``create_ms`` where no kernel was compiled before; None for engines that keep none.
    """

    create_ms: float
    first_run_ms: float
    resident_mib: float | None
    peak_mib: float | None
    cold_ms: float | None = None


def measure_startup(
    engine: str, prepared: bytes, feeds: Arrays, threads: int, cold: bool = False
) -> Startup:
    """Start an engine in a fresh process.

    Parameters
    ----------
    cold : with an empty cache directory instead of the user's.

    Raises
    ------
    RuntimeError
        Where that process fails, with the last line that it wrote.
    """
    with TemporaryDirectory() as folder:
        model, inputs, result = (Path(folder, name) for name in ("model", "feeds.npz", "result"))
        model.write_bytes(prepared)
        np.savez(inputs, allow_pickle=False, **feeds)
        cache = {"XDG_CACHE_HOME": str(Path(folder, "cache"))} if cold else {}
        arguments = [engine, str(threads), str(model), str(inputs), str(result)]
        done = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            cwd=_ROOT,
            env=os.environ | cache,
            capture_output=True,
            text=True,
            check=False,
        )
        if not result.exists():
            said = done.stderr.strip().split("\n")[-1] or f"exit status {done.returncode}"
            raise RuntimeError(f"{engine} did not start: {said}")
        return Startup(**json.loads(result.read_text()))


def _start(engine: str, threads: int, model: Path, inputs: Path) -> Startup:
    """Runs in the fresh process."""
    with np.load(inputs) as stored:
        feeds = dict(stored)
    before = _resident_mib("VmRSS")
    content = model.read_bytes()
    started = perf_counter()
    runner = ENGINES[engine].load(content, threads)
    created = perf_counter()
    runner(feeds)
    ran = perf_counter()
    del content
    gc.collect()
    after, peak = _resident_mib("VmRSS"), _resident_mib("VmHWM")
    return Startup(
        (created - started) * 1e3,
        (ran - created) * 1e3,
        None if before is None or after is None else after - before,
        None if before is None or peak is None else peak - before,
    )


def _resident_mib(field: str) -> float | None:
    """Resident memory of this process now (VmRSS) or at its peak (VmHWM)."""
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next(int(words[1]) / 1024 for words in lines if words and words[0] == f"{field}:")


if __name__ == "__main__":
    _engine, _threads, *_files, _result = sys.argv[1:]
    _found = _start(_engine, int(_threads), *map(Path, _files))
    Path(_result).write_text(json.dumps(asdict(_found)))
