"""The command line, command by command, on the digits model and on small ones built here."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnpy import Session
from mnnpy.cli.main import COMMANDS
from mnnpy.runtime.coefficients import load_coefficients
from mnnpy.runtime.devices import Coefficients
from mnnpy.runtime.registry import backend_names, load_backend
from tests.cli.invoking import invoke, succeed

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits" / "digits.onnx"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """--verbose configures logging for the process."""
    root, ours = logging.getLogger(), logging.getLogger("mnnpy")
    handlers, level = root.handlers[:], ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


def save(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Path:
    """Write a model of float32 inputs and outputs."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """y = a - b"""
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    return save(tmp_path / "sub.onnx", nodes, {"a": [2, 3], "b": ["n", 3]}, {"y": ["m", 3]})


@pytest.fixture
def picture_model(tmp_path: Path) -> Path:
    """Passes a picture through, so that pre-processing can be seen."""
    nodes = [helper.make_node("Relu", ["picture"], ["y"])]
    shape = [1, 3, "height", "width"]
    return save(tmp_path / "picture.onnx", nodes, {"picture": shape}, {"y": shape})


def test_help_teaches() -> None:
    overview = succeed("--help")
    for command in COMMANDS:
        assert command.__name__ in overview
        assert f"mnnpy {command.__name__}" in succeed(command.__name__, "--help")
    assert succeed("--version").startswith("mnnpy ")
    assert invoke().exit_code == 2


def test_convert(tmp_path: Path) -> None:
    target = tmp_path / "digits.mnnpy"
    assert "nodes" in succeed("convert", DIGITS, "-o", target, "--dump-passes", tmp_path / "passes")
    assert any((tmp_path / "passes").iterdir())
    x = np.zeros((2, 1, 8, 8), np.float32)
    (converted,) = Session(target, backend="numpy").run(x).values()
    (original,) = Session(DIGITS, backend="numpy").run(x).values()
    np.testing.assert_allclose(converted, original, atol=1e-6)


def test_info() -> None:
    text = succeed("info", DIGITS, "--shape", "4,1,8,8")
    for part in ("image", "probabilities", "batch x 1 x 8 x 8", "Conv", "opset 17", "4x1x8x8"):
        assert part in text
    macs = next(line for line in text.splitlines() if line.startswith("multiply-adds"))
    count = int(macs.split()[-1].replace(",", ""))
    convolutions = 64 * 32 * 9 * 2 + 64 * 32 * 64 + 64 * 64 * 9 + 64 * 64 * 64
    convolutions += 16 * 64 * 9 + 16 * 64 * 128 + 16 * 128 * 9 + 16 * 128 * 128
    assert count == 4 * (convolutions + 128 * 10)


def test_plan() -> None:
    table = succeed("plan", DIGITS, "-b", "numpy")
    assert "lower bound" in table
    step = succeed("plan", DIGITS, "-b", "numpy", "--step", "0")
    assert "chosen" in step
    assert "conv_pointwise" in step
    low = succeed("plan", DIGITS, "--config", "low_memory", "--shape", "image=2,1,8,8")
    assert "peak" in low
    assert "conv_im2col" not in low
    assert "numba" not in succeed("plan", DIGITS, "--config", "low_memory", "-b", "numpy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pb"])
def test_run_reads_and_writes(two_inputs: Path, tmp_path: Path, suffix: str) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.ones((1, 3), np.float32)
    if suffix == ".npz":
        np.savez(tmp_path / "ab.npz", a=a, b=b)
        given = ["-i", tmp_path / "ab.npz"]
    elif suffix == ".npy":
        np.save(tmp_path / "a.npy", a)
        np.save(tmp_path / "b.npy", b)
        given = ["-i", f"b={tmp_path / 'b.npy'}", "-i", tmp_path / "a.npy"]
    else:
        write_tensor(tmp_path / "a.pb", a)
        write_tensor(tmp_path / "b.pb", b)
        given = ["-i", tmp_path / "a.pb", "-i", tmp_path / "b.pb"]
    output = tmp_path / "out.npz"
    assert "2x3" in succeed("run", two_inputs, *given, "-o", output, "-b", "numpy")
    with np.load(output) as written:
        np.testing.assert_array_equal(written["y"], a - b)


def test_run_on_random_inputs_is_repeatable(two_inputs: Path, tmp_path: Path) -> None:
    outputs = []
    for seed in (1, 1, 2):
        succeed("run", two_inputs, "--seed", seed, "-o", tmp_path / "y.npz", "-s", "b=2,3")
        with np.load(tmp_path / "y.npz") as written:
            outputs.append(written["y"])
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()


def test_run_on_a_picture(picture_model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[..., 0] = 200
    pixels[..., 1] = 100
    image.fromarray(pixels).save(tmp_path / "photo.png")
    options = ["--image", tmp_path / "photo.png", "--size", "2x3"]
    options += ["--mean", "100,50,0", "--scale", "0.5", "-o", tmp_path / "y.npz"]
    succeed("run", picture_model, *options)
    with np.load(tmp_path / "y.npz") as written:
        assert written["y"].shape == (1, 3, 2, 3)
        np.testing.assert_array_equal(written["y"][0, :, 0, 0], [50, 25, 0])
    missing = invoke("run", picture_model, "--image", tmp_path / "photo.png")
    assert missing.exit_code == 2
    assert "--size" in missing.stderr


def write_tensor(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.write_bytes(numpy_helper.from_array(array).SerializeToString())


@pytest.mark.parametrize(
    ("expected", "code", "verdict"),
    [
        (np.full((2, 3), 2, np.float32), 0, "ok"),
        (np.full((2, 3), 2.5, np.float32), 1, "beyond 0.001"),
        (np.full((2, 3), np.nan, np.float32), 1, "NaN at other places"),
        (np.full((2, 3), 2, np.float64), 1, "expected float64(2, 3), got float32(2, 3)"),
        (np.full((3, 3), 2, np.float32), 1, "expected float32(3, 3), got float32(2, 3)"),
    ],
)
def test_check(two_inputs: Path, expected: Any, code: int, verdict: str) -> None:
    folder = two_inputs.parent / "test_data_set_0"
    folder.mkdir()
    write_tensor(folder / "input_0.pb", np.full((2, 3), 3, np.float32))
    write_tensor(folder / "input_1.pb", np.ones((1, 3), np.float32))
    write_tensor(folder / "output_0.pb", expected)
    for given in (folder, folder.parent):
        result = invoke("run", two_inputs, "--check", given, "-b", "numpy")
        assert result.exit_code == code, result.output
        assert verdict in result.stdout
        assert "test_data_set_0" in result.stdout


def test_bench(tmp_path: Path) -> None:
    times, trace = tmp_path / "times.json", tmp_path / "trace.json"
    options = ["--repeats", 3, "--warm-up", 1, "--json", times, "--trace", trace, "--steps"]
    text = succeed("bench", DIGITS, "-b", "numpy", "-t", 1, "-t", 2, "-s", "2,1,8,8", *options)
    assert text.count("whole run") == 2
    report = json.loads(times.read_text())
    assert report["shapes"] == {"image": [2, 1, 8, 8]}
    assert [timing["threads"] for timing in report["timings"]] == [1, 2]
    for timing in report["timings"]:
        assert len(timing["seconds"]) == 3
        assert timing["best"] <= timing["median"] <= timing["p90"] <= timing["p99"]
        assert timing["steps"]
    assert json.loads(trace.read_text())["traceEvents"]


def test_backends() -> None:
    text = succeed("backends")
    for name in backend_names():
        assert name in text
    for name in ("numpy", "numba"):
        assert load_backend(name).check() is not None or f"{name}" in text


def test_calibrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's part: progress, table, file. Measuring itself has tests of its own."""
    steps = []

    def measure(backend: Any, progress: Any) -> dict[str, Coefficients]:
        steps.append(backend.name)
        progress("conv_im2col", 0, 1)
        return {"conv_im2col": Coefficients(1e-11, 0.0, 2e-6), "*": Coefficients(0.0, 1e-9, 0.0)}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("mnnpy.runtime.calibration.calibrate", measure)
    text = succeed("calibrate", "numpy")
    assert steps == ["numpy"]
    assert load_coefficients("numpy")["conv_im2col"] == Coefficients(1e-11, 0.0, 2e-6)
    row = next(line.split() for line in text.splitlines() if line.startswith("conv_im2col"))
    assert row == ["conv_im2col", "100", "-", "2"]
    assert invoke("calibrate", "tpu").exit_code == 2


def test_calibrate_times_tiles_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if load_backend("numba").check() is not None:
        pytest.skip(f"numba: {load_backend('numba').check()}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("mnnpy.runtime.calibration.calibrate", lambda backend, progress: {})
    lines = [line.split() for line in succeed("calibrate", "numba").splitlines()]
    (kept,) = (tmp_path / "mnnpy" / "tiles").iterdir()
    for rows, vectors, rate in json.loads(kept.read_text()):
        assert [f"{rows}", "x", f"{vectors}", f"{rate * 1e-9:.3g}"] in lines


def test_search_and_use_the_plan(tmp_path: Path) -> None:
    config = tmp_path / "quick.yaml"
    config.write_text(
        f"model: {DIGITS}\nshapes: {{image: [1, 1, 8, 8]}}\nbackends: [numpy]\n"
        "threads: 1\nbudget: 0.5\nrepeats: 2\n"
    )
    plan = tmp_path / "best.plan.json"
    text = succeed("search", config, "-o", plan)
    assert "searched" in text
    assert "conv_depthwise" in text
    succeed("run", DIGITS, "--plan", plan, "-b", "numpy")
    assert "steps" in succeed("plan", DIGITS, "--plan", plan, "-b", "numpy")
    refused = invoke("run", DIGITS, "--plan", plan, "-b", "numpy", "-s", "2,1,8,8")
    assert refused.exit_code == 2
    assert "the plan was made for input 'image'" in refused.stderr


@pytest.mark.parametrize(("cap", "code"), [(90_000, 0), (1_000, 2)])
def test_search_under_a_memory_cap(tmp_path: Path, cap: int, code: int) -> None:
    config = tmp_path / "capped.yaml"
    config.write_text(
        f"model: {DIGITS}\nbackends: [numpy]\nbudget: 0.1\nrepeats: 1\n"
        f"shapes: {{image: [1, 1, 8, 8]}}\nmemory_cap_nbytes: {cap}\n"
    )
    plan = tmp_path / "best.plan.json"
    result = invoke("search", config, "-o", plan)
    assert result.exit_code == code, result.output
    if code:
        assert "memory_cap_nbytes" in result.stderr
    else:
        made = Session(DIGITS, backend="numpy", plan=plan).plan([1, 1, 8, 8])
        assert sum(made.memory.arenas.values()) <= cap


def test_demo(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="the picture needs Pillow")
    target = tmp_path / "digits.png"
    text = succeed("demo", "--examples", EXAMPLES, "-o", target)
    accuracies = {
        line.split()[0]: float(line.split()[1].rstrip("%"))
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0] in backend_names() and "%" in line.split()[1]
    }
    usable = {name for name in backend_names() if load_backend(name).check() is None}
    assert set(accuracies) == usable
    assert min(accuracies.values()) >= 97
    with image.open(target) as picture:
        assert picture.size[0] > 500


BAD_INPUT = {
    "missing model": (["run", "missing.onnx"], "missing.onnx"),
    "model is a folder": (["info", "."], "directory"),
    "empty model": (["convert", "empty.onnx"], "empty"),
    "no model": (["info", "text.onnx"], "text.onnx"),
    "no such step": (["plan", DIGITS, "--step", "nonesuch"], "nonesuch"),
    "step beyond the end": (["plan", DIGITS, "--step", "999"], "999"),
    "no such backend": (["run", DIGITS, "-b", "tpu"], "tpu"),
    "shape of no input": (["plan", DIGITS, "-s", "picture=1,1,8,8"], "picture"),
    "shape that does not fit": (["plan", DIGITS, "-s", "1,3,8,8"], "image"),
    "shape of no numbers": (["plan", DIGITS, "-s", "1,b,8,8"], "1,b,8,8"),
    "missing input file": (["run", DIGITS, "-i", "missing.npy"], "missing.npy"),
    "input of unknown kind": (["run", DIGITS, "-i", "text.onnx"], ".npz"),
    "broken input file": (["run", DIGITS, "-i", "broken.npy"], "broken.npy"),
    "broken archive": (["run", DIGITS, "-i", "broken.npz"], "broken.npz"),
    "input of wrong type": (["run", DIGITS, "-i", "float64.npy"], "float32"),
    "more input files than inputs": (["run", DIGITS, "-i", "x.npy", "-i", "x.npy"], "already"),
    "shape beside an input": (["run", DIGITS, "-i", "x.npy", "-s", "1,1,8,8"], "--shape"),
    "missing picture": (["run", DIGITS, "--image", "missing.jpg"], "missing.jpg"),
    "no picture": (["run", DIGITS, "--image", "text.onnx"], "text.onnx"),
    "no test data": (["run", DIGITS, "--check", "."], "test_data_set"),
    "missing test data": (["run", DIGITS, "--check", "missing"], "missing"),
    "missing plan": (["run", DIGITS, "--plan", "missing.json"], "missing.json"),
    "missing configuration": (["search", "nonesuch"], "digits"),
    "no examples": (["demo", "--examples", "."], "--examples"),
    "output in no folder": (["run", DIGITS, "-o", "missing/out.npz"], "missing"),
    "convert to no folder": (["convert", DIGITS, "-o", "missing/out.mnnpy"], "missing"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line on stderr, exit code 2, no traceback, nothing half-written."""
    monkeypatch.chdir(tmp_path)
    Path("empty.onnx").touch()
    for name in ("text.onnx", "broken.npy", "broken.npz"):
        Path(name).write_text("hello, I am a text")
    np.save("float64.npy", np.zeros((1, 1, 8, 8)))
    np.save("x.npy", np.zeros((1, 1, 8, 8), np.float32))
    before = set(tmp_path.iterdir())
    arguments, fragment = BAD_INPUT[case]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert fragment in result.stderr
    assert "Traceback" not in result.output
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments", [["--size", "240"], ["--size", "0x3"], ["--mean", "a"], ["--scale", "1,2"]]
)
def test_bad_options(arguments: list[str], tmp_path: Path) -> None:
    result = invoke("run", DIGITS, "--image", tmp_path / "photo.png", *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_verbose_shows_fallbacks(tmp_path: Path) -> None:
    if load_backend("numba").check() is not None:
        pytest.skip(f"numba: {load_backend('numba').check()}")
    x, y = (helper.make_tensor_value_info(name, TensorProto.DOUBLE, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "doubles", [x], [y])
    path = tmp_path / "doubles.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    result = invoke("--verbose", "plan", path, "-b", "numba")
    assert "instead of numba" in result.stderr
