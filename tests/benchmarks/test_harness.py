"""The benchmark harness: reports, means, taking turns, and engines on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.cpu import parse
from benchmarks.engines import ENGINES, max_error
from benchmarks.layers import layer_table
from benchmarks.memory import memory_rows
from benchmarks.report import Report, Result, geometric_mean, markdown_table
from benchmarks.startup import Startup, measure_startup
from benchmarks.timing import LEAST_ROUNDS, measure_peak, race
from mnnpy.runtime.preinference.plan import MemoryPlan, Slot

FEEDS = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 5), dtype=np.float32)}


def tiny_model() -> bytes:
    """A convolution, an activation and a product."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 3, 3, 3), dtype=np.float32)
    matrix = rng.standard_normal((100, 6), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("Flatten", ["relu"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "matrix"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 6])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(matrix, "matrix"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def result(model: str, engine: str, best_ms: float, **more: Any) -> Result:
    return Result(model, 1, 1, engine, best_ms, best_ms + 1, 5, **more)


@pytest.mark.parametrize(
    ("values", "mean"), [([2.0, 8.0], 4.0), ([5.0], 5.0), ([1e-200, 1e200], 1.0)]
)
def test_geometric_mean(values: list[float], mean: float) -> None:
    assert geometric_mean(values) == pytest.approx(mean)


def test_geometric_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        geometric_mean([])


def test_markdown_table() -> None:
    assert markdown_table(["model", "a"], [["x", "1.00"], ["longer", "-"]]).split("\n") == [
        "| model  |    a |",
        "| ------ | ---: |",
        "| x      | 1.00 |",
        "| longer |    - |",
    ]


def test_report_compares_with_each_peer_and_the_best(tmp_path: Path) -> None:
    results = [
        result("a", "mnnpy-numpy", 20.0, predicted_ms=10.0, max_error=1e-6),
        result("a", "onnxruntime", 10.0, max_error=0.0, startup=Startup(1.0, 2.0, None, 4.0)),
        result("a", "openvino", 5.0),
        result("b", "mnnpy-numpy", 8.0),
        result("b", "onnxruntime", 8.0),
    ]
    Report(results, ["a machine"], ["mnn: not installed"]).write(tmp_path)
    lines = [" ".join(line.split()) for line in (tmp_path / "cpu.md").read_text().split("\n")]
    expected = [
        "| a | 20.00 | 10.00 | 5.00 |",
        "| b | 8.00 | 8.00 | - |",
        "| mnnpy-numpy | a | 2.00x | 4.00x | 4.00x |",
        "| mnnpy-numpy | b | 1.00x | - | 1.00x |",
        "| mnnpy-numpy | geometric mean | 1.41x | 4.00x | 2.00x |",
        "| a | mnnpy-numpy | 20.00 | 21.00 | 5 | 1.0e-06 | 10.00 | 0.50x |",
        "| a | onnxruntime | 1 | 1.00 | 2.00 | - | 4.00 |",
        "- mnn: not installed",
    ]
    assert [line for line in expected if line not in lines] == []
    stored = json.loads((tmp_path / "cpu.json").read_text())
    wanted = {"model": "a", "threads": 1, "batch": 1, "engine": "mnnpy-numpy", "best_ms": 20.0}
    assert wanted.items() <= stored[0].items()
    assert {"median_ms", "max_error"} <= stored[0].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu.json", "cpu.md"]


@pytest.mark.parametrize("rounds", [1, 3, LEAST_ROUNDS + 2])
def test_race_takes_turns(rounds: int) -> None:
    order: list[str] = []
    times = race(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        threads=1,
        rounds=rounds,
        seconds=0,
    )
    counted = min(rounds, LEAST_ROUNDS)
    assert order == ["a", "a", "b", "b"] * counted
    assert {name: len(taken) for name, taken in times.items()} == {"a": counted, "b": counted}


@pytest.mark.parametrize(
    ("found", "error"),
    [([1.0, -4.0], 0.0), ([1.4, -4.0], 0.1), ([1.0, np.nan], np.inf), ([1.0], np.inf)],
)
def test_max_error(found: list[float], error: float) -> None:
    assert max_error({"y": np.array(found)}, {"y": np.array([1.0, -4.0])}) == pytest.approx(error)


def test_max_error_of_a_missing_output() -> None:
    assert max_error({}, {"y": np.ones(1)}) == np.inf


@pytest.mark.parametrize("name", ["mnnpy-numpy", "onnxruntime"])
def test_engine(name: str) -> None:
    engine = ENGINES[name]
    reason = engine.available()
    if reason is not None:
        pytest.skip(reason)
    outputs = engine.load(engine.prepare(tiny_model()), threads=1)(FEEDS)
    assert {key: array.shape for key, array in outputs.items()} == {"y": (2, 6)}
    kept = {key: array.copy() for key, array in outputs.items()}
    assert max_error(outputs, kept) == 0
    if name == "mnnpy-numpy" and ENGINES["onnxruntime"].available() is None:
        reference = ENGINES["onnxruntime"].load(tiny_model(), threads=1)(FEEDS)
        assert max_error(outputs, reference) < 1e-5


def test_startup_is_measured_in_a_fresh_process() -> None:
    startup = measure_startup("mnnpy-numpy", tiny_model(), FEEDS, threads=1)
    assert startup.create_ms > 0
    assert startup.first_run_ms > 0


def test_startup_reports_a_failure() -> None:
    with pytest.raises(RuntimeError, match="mnnpy-numpy did not start"):
        measure_startup("mnnpy-numpy", b"no model", FEEDS, threads=1)


def test_layers_sum_up_the_multiply_adds() -> None:
    peak = measure_peak(threads=1, size=64, repeats=2)
    table = layer_table(tiny_model(), FEEDS, "numpy", 1, peak, repeats=2)
    macs = 2 * 4 * 3 * 9 * 25 + 2 * 100 * 6
    assert f"{macs / 1e6:,.0f} MMACs" in table
    assert f"of the peak of {peak:.0f}" in table


def test_memory_rows() -> None:
    slots = {"x": Slot("host", 0, 1024, 0, 1), "y": Slot("host", 1024, 1024, 1, 2)}
    scratch = Slot("host", 2048, 512, 1, 1)
    memory = MemoryPlan({"host": 2560}, slots, {}, (None, scratch), {"host": 2048})
    expected = ["m", "host", "2.5 KiB", "2 KiB", "1.250", "512 B", "2 KiB", "4 KiB"]
    assert memory_rows("m", memory, weights=4096) == [expected]


def test_options_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--models", "resnet18", "--threads", "1"]).models == ["resnet18"]
    with pytest.raises(SystemExit):
        parse(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err
