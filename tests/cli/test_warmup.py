"""``mnnpy warmup``, in processes of its own: a process compiles a kernel once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.test_cli import DIGITS


def warmup(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = "from mnnpy.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "warmup", str(DIGITS), "--threads", "1", *options],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_warmup_keeps_kernels(tmp_path: Path) -> None:
    first = warmup(tmp_path)
    assert first.returncode == 0, first.stderr
    assert "digits.onnx was ready on numba after" in first.stdout
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("mnnpy/kernels/*.o")}
    assert kept
    assert warmup(tmp_path).returncode == 0
    assert kept == {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("mnnpy/kernels/*.o")}
    cleared = warmup(tmp_path, "--clear")
    assert "removed" in cleared.stdout
    compiled = {path.name for path in tmp_path.glob("mnnpy/kernels/*.o")}
    assert len(kept.keys() - compiled) == 1, "all but the timing of tiles, which are on disk"
    assert compiled <= kept.keys()
    assert kept != {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("mnnpy/kernels/*.o")}


def test_wrong_shapes_are_bad_input(tmp_path: Path) -> None:
    done = warmup(tmp_path, "--shape", "1,2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --shape '1,2'")
