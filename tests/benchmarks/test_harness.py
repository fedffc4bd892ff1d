"""The benchmark harness: reports, means, taking turns, and engines on a tiny model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.cpu import RESULTS, cases, parse
from benchmarks.engines import ENGINES, max_error
from benchmarks.markdown import markdown_table
from benchmarks.memory import memory_rows
from benchmarks.models import MODELS
from benchmarks.report import Report
from benchmarks.resident import Itemised, Resident
from benchmarks.results import Result, geometric_mean, read_results, write_results
from benchmarks.startup import Startup, measure_startup
from benchmarks.timing import LEAST_ROUNDS, race
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


def result(
    model: str,
    engine: str,
    best_ms: float,
    threads: int = 1,
    batch: int = 1,
    sequence: int | None = None,
    **more: Any,
) -> Result:
    return Result(model, threads, batch, sequence, engine, best_ms, best_ms + 1, 5, **more)


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


RESULTS_OF_ALL_KINDS = [
    result("resnet18", "mnnpy-numba", 20.0, predicted_ms=10.0, max_error=1e-6),
    result("resnet18", "onnxruntime", 10.0, max_error=0.0, startup=Startup(1.0, 2.0, None, 4.0)),
    result("resnet18", "openvino", 5.0),
    result("vgg16", "mnnpy-numba", 8.0),
    result("vgg16", "onnxruntime", 8.0),
    result("bert_encoder", "mnnpy-numba", 1.0, sequence=512),
    result("bert_encoder", "onnxruntime", 9.0, sequence=512),
    result("resnet18", "mnnpy-numba", 10.0, threads=2),
    result("resnet18", "onnxruntime", 8.0, threads=2),
    result("resnet18", "mnnpy-numba", 64.0, threads=2, batch=8),
    result("resnet18", "onnxruntime", 96.0, threads=2, batch=8),
]


def test_report(tmp_path: Path) -> None:
    memory = [Itemised("resnet18", ".onnx", Resident(1, 2, 3, 4, 5, 300), 140.0)]
    report = Report(RESULTS_OF_ALL_KINDS, ["a machine"], ["mnn: not installed"], memory)
    report.write(tmp_path)
    lines = [" ".join(line.split()) for line in (tmp_path / "cpu.md").read_text().split("\n")]
    expected = [
        "| resnet18 | 20.00 | 10.00 | 5.00 |",
        "| vgg16 | 8.00 | 8.00 | - |",
        "| mnnpy-numba | resnet18 | 0.50x | 0.25x | 0.25x |",
        "| mnnpy-numba | bert_encoder, 512 tokens | 9.00x | - | 9.00x |",
        "| mnnpy-numba | geometric mean, convolutional | 0.71x | 0.25x | 0.50x |",
        "| mnnpy-numba | resnet18, batch 8 | 1.50x | - | 1.50x |",
        "| mnnpy-numba | geometric mean, convolutional | 0.80x | - | 0.80x |",
        "| resnet18 | 8 | 2 | 8.00 | 12.00 | - | 1.25x | 1.50x |",
        "| resnet18 | 2.00x | 1.25x | - |",
        "| resnet18 | mnnpy-numba | 1 | 20.00 | 21.00 | 5 | 1.0e-06 | 10.00 | 0.50x |",
        "| resnet18 | onnxruntime | 1 | 1.00 | - | 2.00 | - | 4.00 |",
        "| resnet18 | .onnx | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 285.0 | 300.0 | 140.0 | 293.0 |",
        "Above the limit: resnet18.onnx.",
        "- mnn: not installed",
    ]
    assert [line for line in expected if line not in lines] == []
    stored = json.loads((tmp_path / "cpu.json").read_text())
    wanted = {"model": "resnet18", "threads": 1, "batch": 1, "engine": "mnnpy-numba"}
    assert (wanted | {"sequence": None, "best_ms": 20.0}).items() <= stored[0].items()
    assert {"median_ms", "max_error"} <= stored[0].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu.json", "cpu.md"]


@pytest.mark.parametrize("kept", [RESULTS_OF_ALL_KINDS[:1], RESULTS_OF_ALL_KINDS[5:], []])
def test_a_report_of_little_has_no_empty_section(kept: list[Result]) -> None:
    page = Report(kept, ["a machine"], []).markdown()
    sections = page.split("## ")[1:]
    assert all(len(section.strip().split("\n")) > 1 for section in sections)
    assert "Left out" not in page


def test_results_survive_the_file(tmp_path: Path) -> None:
    write_results(tmp_path / "cpu.json", RESULTS_OF_ALL_KINDS)
    assert read_results(tmp_path / "cpu.json") == RESULTS_OF_ALL_KINDS


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


def test_race_counts_more_runs_of_some() -> None:
    order: list[str] = []
    runs = {name: partial(order.append, name) for name in "ab"}
    times = race(runs, threads=1, rounds=1, seconds=0, counted={"a": 3})
    assert order == ["a"] * 4 + ["b"] * 2
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 1}


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


@pytest.mark.parametrize(
    ("engine", "cold"), [("mnnpy-numpy", False), ("mnnpy-numba", False), ("mnnpy-numba", True)]
)
def test_startup_is_measured_in_a_fresh_process(engine: str, cold: bool) -> None:
    startup = measure_startup(engine, tiny_model(), FEEDS, threads=1, cold=cold)
    assert startup.create_ms > 0
    assert startup.first_run_ms > 0


def test_startup_reports_a_failure() -> None:
    with pytest.raises(RuntimeError, match="mnnpy-numpy did not start"):
        measure_startup("mnnpy-numpy", b"no model", FEEDS, threads=1)


def test_memory_rows() -> None:
    slots = {"x": Slot("host", 0, 1024, 0, 1), "y": Slot("host", 1024, 1024, 1, 2)}
    scratch = Slot("host", 2048, 512, 1, 1)
    memory = MemoryPlan({"host": 2560}, slots, {}, (None, scratch), {"host": 2048})
    expected = ["m", "host", "2.5 KiB", "2 KiB", "1.250", "512 B", "2 KiB", "4 KiB"]
    assert memory_rows("m", memory, weights=4096) == [expected]


@pytest.mark.parametrize(
    ("arguments", "model", "expected"),
    [
        ([], "resnet50", ["resnet50", "resnet50, batch 8", "resnet50, batch 32"]),
        ([], "resnet18", ["resnet18"]),
        ([], "bert_encoder", ["bert_encoder, 128 tokens", "bert_encoder, 512 tokens"]),
        (["--quick"], "resnet50", ["resnet50"]),
        (["--quick"], "bert_encoder", ["bert_encoder, 128 tokens"]),
        (["--batch", "2"], "resnet18", ["resnet18, batch 2"]),
        (
            ["--batch", "2", "--sequence", "8"],
            "bert_encoder",
            ["bert_encoder, 8 tokens, batch 2"],
        ),
    ],
)
def test_cases(arguments: list[str], model: str, expected: list[str]) -> None:
    assert [str(case) for case in cases(model, parse(arguments))] == expected


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], RESULTS),
        (["--rounds", "5"], RESULTS),
        (["--per-layer"], RESULTS),
        (["--quick"], None),
        (["--no-startup"], None),
        (["--models", "resnet18"], None),
        (["--threads", "1"], None),
        (["--quick", "--output-dir", "here"], Path("here")),
    ],
)
def test_only_the_whole_benchmark_replaces_the_results(
    arguments: list[str], folder: Path | None
) -> None:
    assert parse(arguments).output_dir == folder


def test_the_whole_benchmark() -> None:
    options = parse([])
    assert options.models == list(MODELS)
    assert options.threads == [1, 2]
    assert options.engines == ["mnnpy-numba", "onnxruntime", "openvino", "mnn", "pytorch"]
    assert options.startup
    assert options.layered == ("mobilenet_v2", "resnet50")


@pytest.mark.parametrize("option", ["--rounds", "--threads", "--batch", "--sequence"])
def test_options_are_checked(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([option, "0"])
    assert f"{option} must be at least 1" in capsys.readouterr().err
