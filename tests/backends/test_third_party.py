"""A backend of another package, found through the entry point group ``mnnpy.backends``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnnpy.runtime import registry
from mnnpy.runtime.errors import BackendError
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.ops.activation import Relu, Sigmoid
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.session import Session
from tests.installing import installed_backends
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds

TOY = '''
"""A backend that computes Relu its own way and leaves the rest to others."""

from dataclasses import replace

import numpy as np

from mnnpy.backends.array_kernel import ArrayKernel
from mnnpy.backends.numpy_cpu.backend import NumpyBackend
from mnnpy.runtime.contracts import Scheme
from mnnpy.runtime.devices import Coefficients
from mnnpy.runtime.ops.activation import Relu

RUNS = []


class ToyRelu(Scheme):
    name = "toy_relu"
    operators = (Relu,)

    def bind(self, xp, task, config, buffers):
        (x,), (y,) = buffers.inputs, buffers.outputs

        def run():
            RUNS.append("relu")
            y[...] = (np.abs(x) + x) / 2

        return run


class ToyBackend(NumpyBackend):
    name = "toy"

    def describe(self):
        free = Coefficients(0, 0, 0)
        return replace(NumpyBackend().describe(), name="toy", coefficients={"*": free})

    def kernels(self, op):
        return (ArrayKernel(ToyRelu(), lambda: np),) if isinstance(op, Relu) else ()

    def regions(self, graph, values):
        return ()


class BrokenBackend(ToyBackend):
    name = "broken"

    def check(self):
        return "the toy is broken: install mnnpy-toy[repair]"
'''

BACKENDS = {"toy": "mnnpy_toy:ToyBackend", "broken": "mnnpy_toy:BrokenBackend"}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package ``mnnpy-toy`` with its module."""
    (tmp_path / "mnnpy_toy.py").write_text(TOY)
    with installed_backends(tmp_path, monkeypatch, BACKENDS):
        yield
    sys.modules.pop("mnnpy_toy", None)


def builder() -> GraphBuilder:
    b = GraphBuilder()
    x = b.input((2, 3))
    b.node(Add(), b.node(Relu(), b.node(Sigmoid(), x)), x)
    return b


@pytest.mark.usefixtures("installed")
def test_a_session_uses_it_with_fallbacks() -> None:
    b = builder()
    graph = b.graph(b.nodes[-1].outputs[0])
    session = Session(graph, backend="toy", constraints=Constraints(fuse=False))
    feeds = random_feeds(graph)
    assert_close(session.run(feeds), evaluate(graph, np, feeds))
    steps = session.plan().steps
    toy = [step.node.op.kind for step in steps if step.choice.backend == "toy"]
    assert toy == ["Relu"]
    assert {step.choice.scheme for step in steps if step.node.op.kind == "Relu"} == {"toy_relu"}
    assert sys.modules["mnnpy_toy"].RUNS
    assert not [step for step in steps if step.node.op.kind == "mnnpy.Copy"]


@pytest.mark.usefixtures("installed")
def test_strict_refuses_what_it_cannot_run() -> None:
    b = builder()
    graph = b.graph(b.nodes[-1].outputs[0])
    with pytest.raises(BackendError, match="nothing can run Sigmoid node"):
        Session(graph, backend="toy", strict=True).run(random_feeds(graph))


@pytest.mark.usefixtures("installed")
def test_it_is_listed_and_its_reason_is_said() -> None:
    assert {"toy", "broken", "numpy"} <= set(registry.backend_names())
    with pytest.raises(BackendError, match="install mnnpy-toy"):
        Session(builder().graph("v2"), backend="broken")


def test_without_the_package_it_is_unknown() -> None:
    with pytest.raises(BackendError, match="there is no backend 'toy'; installed are"):
        Session(builder().graph("v2"), backend="toy")
