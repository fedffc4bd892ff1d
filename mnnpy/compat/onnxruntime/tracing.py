"""Traces of runs: a Chrome trace of every step, as ``enable_profiling`` promises."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.plan import Step


@dataclass(slots=True)
class Trace:
    """Events of the runs of a session, with times in microseconds since ``start_ns``."""

    start_ns: int = field(default_factory=time.monotonic_ns)
    events: list[dict[str, Any]] = field(default_factory=list)
    _entered_ns: int = 0

    def before(self, step: Step, read: Mapping[str, Array]) -> None:
        self._entered_ns = time.monotonic_ns()

    def after(self, step: Step, written: Mapping[str, Array]) -> None:
        args = {
            "op_name": step.node.op.kind,
            "provider": step.choice.backend,
            "scheme": step.choice.scheme,
        }
        self.add("Node", step.node.name, self._entered_ns, args)

    def add(self, kind: str, name: str, entered_ns: int, args: Mapping[str, str]) -> None:
        """Something that began at ``entered_ns`` and ends now."""
        self.events.append(
            {
                "cat": kind,
                "pid": os.getpid(),
                "tid": threading.get_native_id(),
                "dur": (time.monotonic_ns() - entered_ns) // 1000,
                "ts": (entered_ns - self.start_ns) // 1000,
                "ph": "X",
                "name": name,
                "args": dict(args),
            }
        )

    def write(self, prefix: str) -> str:
        """Write the trace to ``<prefix>_<date>_<time>.json``; the name of the file."""
        path = Path(f"{prefix}_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}.json")
        write_atomically(path, json.dumps(self.events).encode())
        return str(path)
