"""Running a client on both sides, and comparing what it found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.scenarios import TOLERANCES

FOLDER = Path(__file__).parents[2] / "build" / "clients"
TOLERANCE = 1e-4
"""Largest accepted difference of two floats, relative to the larger one where that is over 1."""

PACKAGES = (
    *("ddddocr", "magika", "nudenet", "rapid_layout", "rapidocr", "rapidocr_onnxruntime"),
    "silero_vad",
)
_IMPORT = re.compile(r"^(\s*)(import|from) onnxruntime\b", re.MULTILINE)
_LONGEST_SECONDS = 900


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    scripts = sysconfig.get_path("scripts", "venv", {"base": str(environment)})
    return Path(scripts) / ("python.exe" if os.name == "nt" else "python")


def copy_changed() -> None:
    """Copy the clients' packages, with the import of ONNX Runtime changed into that of the face."""
    target = FOLDER / "changed"
    shutil.rmtree(target, ignore_errors=True)
    site = subprocess.run(
        [
            python_of(FOLDER / "venv"),
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in PACKAGES:
        source = Path(site.stdout.strip()) / name
        if source.exists():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in target.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        changed = _IMPORT.sub(_changed_import, text)
        if changed != text:
            path.write_text(changed, encoding="utf-8")


def _changed_import(found: re.Match[str]) -> str:
    """``import onnxruntime`` comes from ``mnnpy.compat``; what is imported from it follows."""
    if found[2] == "import":
        return f"{found[1]}from mnnpy.compat import onnxruntime"
    return f"{found[1]}from mnnpy.compat.onnxruntime"


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; ``seconds`` are those of opening, first and second use, per side."""

    verdict: str
    failed: bool = False
    distance: float | None = None
    seconds: tuple[list[float], list[float]] = ((), ())  # type: ignore[assignment]

    @property
    def distance_text(self) -> str:
        return "-" if self.distance is None else f"{self.distance:.1e}"


def compared(name: str, backend: str = "auto") -> Row:
    """Run a client on ONNX Runtime and on the face, and compare what it found."""
    theirs = _run(name, None)
    if isinstance(theirs, str):
        return Row(f"skipped: {theirs}"[:60])
    ours = _run(name, backend)
    if isinstance(ours, str):
        return Row(f"fails: {ours}", failed=True)
    seconds = theirs["seconds"], ours["seconds"]
    distance = difference(ours["found"], theirs["found"])
    if distance is None:
        return Row("differs", failed=True, seconds=seconds)
    wrong = distance > TOLERANCES.get(name, TOLERANCE)
    labels = len(list(_texts(theirs["found"])))
    verdict = "differs" if wrong else f"equal ({labels} texts)"
    return Row(verdict, wrong, distance, seconds)


def difference(a: Any, b: Any) -> float | None:
    """The largest distance of floats; None where anything else is not equal."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) / max(abs(a), abs(b), 1)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return difference([a[key] for key in a], [b[key] for key in a])
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [difference(x, y) for x, y in zip(a, b, strict=True)]
        return None if None in parts else max((p for p in parts if p is not None), default=0.0)
    return 0.0 if type(a) is type(b) and a == b else None


def _texts(found: Any) -> Any:
    if isinstance(found, str):
        yield found
    elif isinstance(found, list):
        for each in found:
            yield from _texts(each)
    elif isinstance(found, dict):
        yield from _texts(list(found.values()))


def _run(name: str, backend: str | None) -> dict[str, Any] | str:
    """What the client found, or the last line of what it said instead."""
    changed = {} if backend is None else {"PYTHONPATH": str(FOLDER / "changed")}
    arguments = [] if backend is None else [backend]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        program = Path(__file__).with_name("scenarios.py")
        done = subprocess.run(
            [python_of(FOLDER / "venv"), program, name, results, *arguments],
            env={**os.environ, **changed},
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
            check=False,
        )
        if not results.exists():
            return (done.stderr.strip().splitlines() or ["no results"])[-1]
        loaded: dict[str, Any] = json.loads(results.read_text())
        return loaded
