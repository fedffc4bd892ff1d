"""Where the memory of a process is."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.engines import OURS, REFERENCE
from benchmarks.resident import measure_resident
from mnnpy import convert
from tests.benchmarks.test_harness import tiny_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_parts_of_a_process(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is in the extra 'dev'")
    model = tmp_path / "tiny.onnx"
    model.write_bytes(tiny_model())
    convert(model, tmp_path / "tiny.mnnpy")
    for engine, file in [(OURS, model), (OURS, tmp_path / "tiny.mnnpy"), (REFERENCE, model)]:
        found = measure_resident(engine, file, (2, 3, 5, 5))
        assert found.total >= found.imports > 10
        assert min(asdict(found).values()) >= 0
        assert (found.packed > 0) == (engine == OURS)


def test_a_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"mnnpy failed: .*missing"):
        measure_resident(OURS, tmp_path / "missing.onnx", (1,))
