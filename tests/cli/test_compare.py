"""``mnnpy compare`` and ``mnnpy verify``: tables, exit codes, repros."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnpy import Session, trusted
from mnnpy.data_sets import write_data_set
from mnnpy.runtime.model_file import save_model
from tests.cli.invoking import invoke, succeed
from tests.face.wrong_backends import BACKENDS
from tests.installing import installed_backends

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 6)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with small models, in which commands run, and the wrong backends."""
    folder, site = tmp_path / "here", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    monkeypatch.chdir(folder)
    make_model(folder / "model.onnx")
    save_model(Session(folder / "model.onnx", "numpy").graph, folder / "model.mnnpy")
    np.save("x.npy", X)
    np.savez("x.npz", x=X)
    with installed_backends(site, monkeypatch, BACKENDS):
        yield folder


def make_model(path: Path) -> None:
    """y = softmax(x @ w), with a dynamic batch."""
    weights = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
            helper.make_node("Softmax", ["product"], ["y"], "last"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


RIGHT = ["--backends", "wrong_nowhere", "--against", "numpy"]
WRONG = ["--backends", "wrong_softmax", "--against", "numpy"]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ([], ["1x6", "3x6"]),
        (["-s", "x=5,6"], ["5x6"]),
        (["--shapes", "5,6", "-s", "2,6", "--shape", "x=4x6"], ["5x6", "2x6", "4x6"]),
        (["-i", "x.npy"], ["2x6"]),
        (["--input", "x=x.npz"], ["2x6"]),
        (["--seed", 3, "--threads", 1], ["1x6", "3x6"]),
    ],
)
@pytest.mark.parametrize("model", ["model.onnx", "model.mnnpy"])
def test_compare_over_inputs(model: str, given: list[Any], labels: list[str]) -> None:
    text = succeed("compare", model, *RIGHT, *given)
    rows = [line.split() for line in text.splitlines() if "wrong_nowhere" in line]
    assert [row[:3] for row in rows] == [[label, "wrong_nowhere", "y"] for label in labels]
    assert {row[-1] for row in rows} == {"ok"}
    assert f"{len(labels)} of {len(labels)} outputs fit" in text
    failed = invoke("compare", model, *WRONG, *given)
    assert failed.exit_code == 1
    assert f"0 of {len(labels)} outputs fit" in failed.stdout


def test_several_backends_in_one_table() -> None:
    result = invoke(
        "compare", "model.onnx", "-b", "numpy,wrong_softmax", "-b", "wrong_nowhere", "-s", "1,6"
    )
    verdicts = {
        line.split()[1]: line.split()[5] for line in result.stdout.splitlines() if "1x6" in line
    }
    assert verdicts == {"numpy": "ok", "wrong_softmax": "beyond", "wrong_nowhere": "ok"}
    assert result.exit_code == 1
    assert succeed("compare", "model.onnx", *WRONG, "--tolerance", "float32=0.9")


def test_all_usable_backends_unless_given() -> None:
    result = invoke("compare", "model.onnx", "--against", "numpy", "-s", "1,6")
    compared = {line.split()[1] for line in result.stdout.splitlines() if line.startswith("1x6")}
    assert compared >= set(BACKENDS)
    assert "numpy" not in compared
    skipped = {line.split(":")[0] for line in result.stderr.splitlines() if "skipped" in line}
    assert {name.removeprefix("skipped ") for name in skipped}.isdisjoint(compared)
    assert skipped or "cuda" in compared


def test_onnxruntime_is_trusted_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    assert succeed("compare", "model.onnx", "-b", "numpy").startswith("against onnxruntime")
    assert succeed("compare", "model.mnnpy", "-b", "numpy").startswith("against numpy")
    refused = invoke("compare", "model.mnnpy", "--against", "onnxruntime")
    assert refused.exit_code == 2
    assert "give the .onnx file" in refused.stderr


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted, "find_spec", lambda name: None)
    assert succeed("compare", "model.onnx", "-b", "numpy").startswith("against numpy")
    refused = invoke("compare", "model.onnx", "--against", "onnxruntime")
    assert refused.exit_code == 2
    assert "mnnpy[compare]" in refused.stderr


def test_bisect_names_the_step_and_saves_it() -> None:
    clean = succeed("compare", "model.onnx", *RIGHT, "--bisect")
    assert clean.count("steps agree") == 2
    assert not Path("repro").exists()
    result = invoke("compare", "model.onnx", *WRONG, "--bisect", "--repro", "found here")
    assert result.exit_code == 1
    facts = {
        line.split()[0]: line.strip() for line in result.stdout.splitlines() if line[:2] == "  "
    }
    for key, value in (("node", "last"), ("operator", "Softmax"), ("backend", "wrong_softmax")):
        assert value in facts[key]
    assert "reference" in facts["scheme"]
    assert "the kernel" in facts["at"]
    assert "wrong alone, too" in facts["repro"]
    again = shlex.split(facts["run"].removeprefix("run it"))
    assert again[:2] == ["mnnpy", "compare"]
    failed = invoke(*again[1:])
    assert failed.exit_code == 1
    assert "against given" in failed.stdout
    folder = again[2]
    assert "1 of 1 outputs fit" in succeed("compare", folder, "-b", "numpy")
    assert "1 of 1 outputs fit" in succeed("verify", folder, "-b", "numpy")
    assert invoke("verify", folder, "-b", "wrong_softmax").exit_code == 1


@pytest.fixture
def zoo(here: Path) -> list[Path]:
    """Two models as in ONNX's model zoo, of which the second has a wrong output."""
    folders = [here / "zoo" / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir(parents=True)
        make_model(folder / "model.onnx")
        outputs = Session(folder / "model.onnx", "numpy").run(X)
        for index in range(2):
            write_data_set(folder / f"test_data_set_{index}", {"x": X}, outputs)
    write_data_set(folders[1] / "test_data_set_1", {"x": X}, {"y": outputs["y"] + 0.01})
    return folders


def test_verify(zoo: list[Path]) -> None:
    text = succeed("verify", zoo[0], "-b", "numpy")
    assert "test_data_set_0" in text
    assert "2 of 2 outputs fit" in text
    both = invoke("verify", *zoo, "--backend", "numpy")
    assert both.exit_code == 1
    assert "2 of 2 outputs fit" in both.stdout
    assert "1 of 2 outputs fit" in both.stdout
    succeed("verify", *zoo, "--tolerance", "0.1")
    text = succeed("compare", zoo[0], "-b", "numpy")
    assert "against given" in text
    assert "2 of 2 outputs fit" in text


BAD_INPUT = {
    "missing model": (["compare", "missing.onnx"], "missing.onnx"),
    "folder without a model": (["compare", "."], "model.onnx"),
    "no such backend": (["compare", "model.onnx", "-b", "tpu"], "tpu"),
    "no such trusted side": (["compare", "model.onnx", "--against", "tpu"], "tpu"),
    "shape that does not fit": (["compare", "model.onnx", "-s", "1,7"], "takes float32(batch, 6)"),
    "shape beside an input": (["compare", "model.onnx", "-i", "x.npy", "-s", "2,6"], "--shape"),
    "bad tolerance": (["compare", "model.onnx", "--tolerance", "small"], "write 1e-3"),
    "missing input": (["compare", "model.onnx", "-i", "missing.npy"], "missing.npy"),
    "plan of another model": (["compare", "model.onnx", "--plan", "missing.json"], "missing.json"),
    "no test data": (["verify", "empty"], "no .onnx or .mnnpy file"),
    "a model without test data": (["verify", "bare"], "test_data_set_*"),
    "verify a missing folder": (["verify", "missing"], "missing"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case: str, here: Path) -> None:
    Path("empty").mkdir()
    Path("bare").mkdir()
    make_model(Path("bare/model.onnx"))
    if case == "folder without a model":
        Path("model.onnx").rename("a.onnx")
        Path("model.mnnpy").rename("b.mnnpy")
    arguments, fragment = BAD_INPUT[case]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert fragment in result.stderr
