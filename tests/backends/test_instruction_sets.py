"""The generated kernels for narrower vectors than this machine's, in a process of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

ROOT = Path(__file__).parents[2]

NARROWER = {
    "AVX2": ("haswell", "+avx,+avx2,+fma", "avx2"),
    "SSE2": ("x86-64", "+sse2", "sse2"),
}


@pytest.mark.parametrize("name", NARROWER)
def test_narrower_vectors(name: str, tmp_path: Path) -> None:
    cpu, features, needed = NARROWER[name]
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"{platform.machine()} has no {name}")
    if not llvm.get_host_cpu_features().get(needed):
        pytest.skip(f"this processor has no {name}")
    environment = os.environ | {
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "XDG_CACHE_HOME": str(tmp_path),
    }
    files = (
        *("test_native_convolutions.py", "test_native_lines_and_moves.py"),
        *("test_native_products.py", "test_native_pools.py", "test_native_separable.py"),
        *("test_native_inverted.py", "test_native_strassen.py", "test_native_pooled.py"),
        *("test_kernels.py", "test_native_elementwise.py", "test_vector_math.py"),
        *("test_tiles.py", "test_native_recurrent.py"),
    )
    tests = [str(ROOT / "tests" / "backends" / file) for file in files]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", "numba or odd_shapes"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
