"""The performance table of README.md."""

from __future__ import annotations

import pytest

from benchmarks.readme import BEGIN, END, README, RESULTS, performance_table, with_table
from benchmarks.results import Comparison, Result, read_results


def test_the_readme_shows_the_results() -> None:
    text = README.read_text()
    table = performance_table(Comparison(read_results(RESULTS)))
    assert text == with_table(text, table), "python -m benchmarks.readme writes the table"


def test_performance_table() -> None:
    times = {
        ("resnet18", 1, 1, "mnnpy-numba"): 10.0,
        ("resnet18", 1, 1, "onnxruntime"): 20.0,
        ("resnet18", 1, 8, "mnnpy-numba"): 70.0,
        ("resnet18", 2, 1, "mnnpy-numba"): 5.0,
        ("resnet18", 2, 1, "onnxruntime"): 20.0,
    }
    results = [
        Result(model, threads, batch, None, engine, ms, ms, 5)
        for (model, threads, batch, engine), ms in times.items()
    ]
    lines = [" ".join(line.split()) for line in performance_table(Comparison(results)).split("\n")]
    assert lines[0] == (
        "| model, ms | mnnpy | ONNX Runtime | speed-up, 1 thread "
        "| mnnpy | ONNX Runtime | speed-up, 2 threads |"
    )
    assert lines[2:] == [
        "| resnet18 | 10.0 | 20.0 | 2.00x | 5.0 | 20.0 | 4.00x |",
        "| geometric mean, convolutional | | | 2.00x | | | 4.00x |",
    ]


def test_a_table_replaces_the_one_before() -> None:
    once = with_table(f"a\n{BEGIN}\n{END}\nb", "new")
    assert once == f"a\n{BEGIN}\nnew\n{END}\nb"
    assert with_table(once, "newer") == f"a\n{BEGIN}\nnewer\n{END}\nb"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_table_needs_its_place(text: str) -> None:
    with pytest.raises(ValueError, match="there must be one"):
        with_table(text, "table")
