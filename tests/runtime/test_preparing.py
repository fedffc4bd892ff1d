"""Planning and binding ahead: progress, what plans share, and what does not stay in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.model_file import load_model, release_pages, save_model
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder

needs_smaps = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")


def convolutions() -> Graph:
    """Three 3x3 convolutions of 32 channels on pictures of any size."""
    b, rng = GraphBuilder(), np.random.default_rng(0)
    x = b.input((1, 32, SymbolicDim.named("height"), SymbolicDim.named("width")))
    for _ in range(3):
        w = b.constant(rng.standard_normal((32, 32, 3, 3), dtype=np.float32))
        x = b.node(Relu(), b.node(Conv(pads=(1, 1, 1, 1)), x, w))
    return b.graph(x)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_progress_names_every_step_that_is_bound(backend: str) -> None:
    told: list[tuple[float, str]] = []
    session = Session(convolutions(), backend)
    session.prepare((1, 32, 9, 9), lambda done, now: told.append((done, now)))
    steps = session.plan((1, 32, 9, 9)).steps
    assert [now for _, now in told] == [f"{s.choice.scheme}: {s.node.name}" for s in steps]
    assert [done for done, _ in told] == [index / len(steps) for index in range(len(steps))]
    session.executable(np.zeros((1, 32, 9, 9), np.float32), lambda *_: pytest.fail("bound twice"))


def test_tile_heights_do_not_change_packed_weights() -> None:
    direct = Constraints(allowed={"Conv": frozenset({"conv_direct"})})
    session = Session(convolutions(), "numba", constraints=direct)
    session.prepare((1, 32, 12, 12))
    held = session.packed_nbytes
    session.prepare((1, 32, 11, 11))
    plans = [session.plan((1, 32, size, size)) for size in (11, 12)]
    configs = {step.choice.config for plan in plans for step in plan.steps if step.choice.config}
    assert len(configs) == 2
    assert session.packed_nbytes == held


def resident_kib(file: Path) -> int:
    """Resident part of the mapping of a file."""
    total, counted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counted = words[-1] == str(file)
        elif counted and words[0] == "Rss:":
            total += int(words[1])
    return total


@needs_smaps
def test_what_was_packed_does_not_stay_in_memory(tmp_path: Path) -> None:
    b = GraphBuilder()
    w = np.random.default_rng(0).standard_normal((256, 256, 3, 3), dtype=np.float32)
    x = b.node(Conv(pads=(1, 1, 1, 1)), b.input((1, 256, 9, 9)), b.constant(w))
    file = tmp_path / "model.mnnpy"
    save_model(b.graph(x), file)
    session = Session(file, "numba")
    session.prepare()
    assert session.packed_nbytes >= w.nbytes
    assert resident_kib(file) * 1024 < w.nbytes / 4
    np.testing.assert_array_equal(session.graph.constants["c0"], w)


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    b = GraphBuilder()
    contents = [np.arange(size, dtype=np.float32) for size in (1, 1000, 5000, 100_000)]
    names = [b.constant(content) for content in contents]
    save_model(b.graph(*names), tmp_path / "model.mnnpy")
    constants = load_model(tmp_path / "model.mnnpy").constants
    for name, content in zip(names, contents, strict=True):
        release_pages(constants[name])
        release_pages(constants[name][3:-5])
        np.testing.assert_array_equal(constants[name], content)


@pytest.mark.parametrize("mode", ["c", "r+"])
def test_written_maps_are_left_alone(tmp_path: Path, mode: str) -> None:
    np.zeros(10_000, np.float32).tofile(tmp_path / "zeros")
    mapped = np.memmap(tmp_path / "zeros", np.float32, mode=mode)  # type: ignore[call-overload]
    mapped[:] = 1
    release_pages(mapped[10:])
    assert mapped.min() == 1


def test_arrays_of_no_file_are_left_alone() -> None:
    array = np.ones(10_000, np.float32)
    release_pages(array[5:])
    assert array.min() == 1


def test_bytes_are_not_kept(tmp_path: Path) -> None:
    save_model(convolutions(), tmp_path / "model.mnnpy")
    content = (tmp_path / "model.mnnpy").read_bytes()
    session = Session(content, "numpy")
    _, (source, *_rest) = session.__reduce__()
    assert source is session.graph
