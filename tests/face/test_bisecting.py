"""Planted mistakes are found and named, whatever becomes of them later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnpy import Session
from mnnpy.bisecting import Bisection, bisect, write_repro
from mnnpy.comparing import Tolerances, differences
from mnnpy.data_sets import read_data_set
from mnnpy.runtime.errors import ConfigError
from mnnpy.runtime.execution import Executable
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.fused import Copy
from mnnpy.runtime.ops.generation import RandomNormal
from mnnpy.runtime.registry import why_unusable
from mnnpy.sampling import random_feeds
from mnnpy.trusted import GivenOutputs, OwnBackend, trusted_side, why_no_onnxruntime
from tests.face.wrong_backends import BACKENDS
from tests.installing import installed_backends

LAYERS = 8


def network() -> bytes:
    """Eight convolutions, each with a Relu behind it, and a softmax over what they give."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for layer in range(LAYERS):
        content = rng.standard_normal((3, 3, 3, 3), dtype=np.float32) / 5
        weights.append(numpy_helper.from_array(content, f"w{layer}"))
        names = [x, f"w{layer}"]
        nodes.append(helper.make_node("Conv", names, [f"c{layer}"], f"conv{layer}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], f"relu{layer}"))
        x = f"r{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"], "pool"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flatten"))
    nodes.append(helper.make_node("Softmax", ["flat"], ["y"], "softmax"))
    shape, single = ["batch", 3, 8, 8], TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "eight",
        [helper.make_tensor_value_info("x", single, shape)],
        [helper.make_tensor_value_info("y", single, ["batch", 3])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


NETWORK = network()
ONNXRUNTIME = pytest.param(
    "onnxruntime", marks=pytest.mark.skipif(bool(why_no_onnxruntime()), reason="needs onnxruntime")
)


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "site"
    folder.mkdir()
    with installed_backends(folder, monkeypatch, BACKENDS):
        yield


def bisected(backend: str, against: str, batch: int = 1) -> tuple[Bisection, dict[str, Any]]:
    session = Session(NETWORK, backend)
    feeds = random_feeds(session.graph, {"x": (batch, 3, 8, 8)}, 0)
    return bisect(session, trusted_side(NETWORK, against), feeds), feeds


PLANTED = {
    "the seventh Conv, in a region": ("wrong_conv", 1, "conv6", "Conv+Relu", "r6", False),
    "every Softmax": ("wrong_softmax", 1, "softmax", "Softmax", "y", False),
    "hidden by a Relu": ("wrong_below_zero", 1, "conv6", "Conv", "c6", True),
    "for one batch only": ("wrong_batch", 3, "conv6", "Conv+Relu", "r6", False),
}
"""What is planted -> backend, batch, node, operator, value, whether the model's outputs agree."""


@pytest.mark.parametrize("against", ["numpy", ONNXRUNTIME])
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_mistake_is_named(planted: str, against: str, tmp_path: Path) -> None:
    backend, batch, node, kind, name, hidden = PLANTED[planted]
    found, feeds = bisected(backend, against, batch)
    (culprit,) = found.culprits
    step = culprit.step
    assert (step.node.name, step.node.op.kind) == (node, kind)
    assert (step.choice.backend, culprit.difference.name) == (backend, name)
    assert culprit.blames_kernel
    assert not culprit.difference.fits
    expected = trusted_side(NETWORK, against).outputs(feeds)
    judged = differences(expected, Session(NETWORK, backend).run(feeds), Tolerances())
    assert all(entry.fits for entry in judged) is hidden
    assert write_repro(culprit, tmp_path / "repro")
    inputs, outputs = read_data_set(tmp_path / "repro" / "test_data_set_0", culprit.graph)
    right = Session(tmp_path / "repro" / "model.mnnpy", "numpy").run(inputs)
    assert all(entry.fits for entry in differences(outputs, right, Tolerances()))


@pytest.mark.parametrize("against", ["numpy", ONNXRUNTIME])
@pytest.mark.parametrize(("backend", "batch"), [("wrong_nowhere", 1), ("wrong_batch", 2)])
def test_nobody_is_accused_where_all_is_right(backend: str, batch: int, against: str) -> None:
    found, _ = bisected(backend, against, batch)
    assert not found.culprits
    assert found.steps >= LAYERS


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_every_wrong_step_is_judged_on_right_inputs(backend: str) -> None:
    """Mistakes in one chain: the later is no consequence of the earlier, in any layout."""
    if (reason := why_unusable(backend)) is not None:
        pytest.skip(reason)
    whole = Session(NETWORK, backend)
    feeds = random_feeds(whole.graph, {"x": (1, 3, 8, 8)}, 0)
    executable = whole.executable(feeds)
    assert not bisect(whole, trusted_side(NETWORK, "numpy"), feeds).culprits
    for place, step in enumerate(executable.plan.steps):
        if step.node.name in ("conv2", "conv6", "softmax"):
            spoil(executable, place, step.node.outputs[0])
    found = bisect(whole, trusted_side(NETWORK, "numpy"), feeds)
    names = [culprit.step.node.name for culprit in found.culprits]
    assert names == ["conv2", "conv6", "softmax"]


def spoil(executable: Executable, place: int, name: str) -> None:
    """Double the first element of what a bound step writes."""
    right = executable.step_runs[place]
    written = executable.contents([name])[name][(slice(None), 0)]

    def wrong() -> None:
        right()
        written[...] = written * 2 + 1

    executable.step_runs[place] = wrong


def test_what_rewrites_bring_in_is_judged_by_references() -> None:
    """A value that the trusted side does not have."""
    graph = Session(NETWORK, "numpy").graph
    feeds = random_feeds(graph, {"x": (1, 3, 8, 8)}, 0)
    outputs = Session(graph, "numpy").run(feeds)
    for backend, wrong in (("wrong_conv", ["conv6"]), ("wrong_nowhere", [])):
        found = bisect(Session(graph, backend), GivenOutputs("given", outputs), feeds)
        assert [culprit.step.node.name for culprit in found.culprits] == wrong


def test_a_wrong_constant_is_not_blamed_on_the_kernel() -> None:
    session = Session(NETWORK, "numpy")
    feeds = random_feeds(session.graph, {"x": (1, 3, 8, 8)}, 0)
    right = trusted_side(NETWORK, "numpy")
    constants = {n: 2 * c if n == "w3" else c for n, c in session.graph.constants.items()}
    spoilt = Session(replace(session.graph, constants=constants), "numpy")
    (culprit,) = bisect(spoilt, right, feeds).culprits
    assert culprit.step.node.name == "conv3"
    assert not culprit.blames_kernel


def test_random_operators_are_not_judged() -> None:
    nodes = (
        Node("noise", RandomNormal(shape=(2, 3)), (), ("r",)),
        Node("sum", Add(), ("r", "x"), ("y",)),
    )
    graph = Graph(nodes, {"x": TensorType(FLOAT32, (2, 3))}, ("y",))
    feeds = {"x": np.zeros((2, 3), np.float32)}
    found = bisect(Session(graph, "numpy"), OwnBackend(Session(graph, "numpy")), feeds)
    assert not found.culprits
    assert found.random == ["RandomNormal node 'noise'"]


def test_a_copy_has_no_repro(tmp_path: Path) -> None:
    """A mistake in bringing a value to another memory is named, too."""
    whole = Session(NETWORK, "wrong_nowhere")
    feeds = random_feeds(whole.graph, {"x": (1, 3, 8, 8)}, 0)
    executable = whole.executable(feeds)
    assert isinstance(executable.plan.steps[0].node.op, Copy)
    spoil(executable, 0, executable.plan.steps[0].node.outputs[0])
    (culprit,) = bisect(whole, trusted_side(NETWORK, "numpy"), feeds).culprits
    assert culprit.difference.name == "x"
    with pytest.raises(ConfigError, match="no repro"):
        write_repro(culprit, tmp_path / "repro")
