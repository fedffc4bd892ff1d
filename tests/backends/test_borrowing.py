"""Inputs and outputs that generated kernels find where the caller holds them."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import mnnpy
from mnnpy.backends.numba_cpu.native import address_of
from mnnpy.runtime.execution import Executable
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import FLOAT32, FLOAT64, DType
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.selection import NonZero
from mnnpy.runtime.ops.shaping import Flatten
from mnnpy.runtime.preinference import planner
from mnnpy.runtime.preinference.check_memory import check_memory
from mnnpy.runtime.registry import with_fallbacks
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds, random_graph

Array = np.ndarray[Any, Any]
LARGE = (1, 64, 60, 60)


@pytest.fixture
def everything_borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it is."""
    monkeypatch.setattr(planner, "_WORTH_BORROWING", 0)


def added(shape: tuple[int, ...] = LARGE, dtype: DType = FLOAT32) -> Graph:
    builder = GraphBuilder()
    x, y = builder.input(shape, dtype), builder.input(shape, dtype)
    return builder.graph(builder.node(Add(), builder.node(Relu(), x), y))


def read_by(*operators: Any) -> Graph:
    """One large input that every operator reads; all results are outputs."""
    builder = GraphBuilder()
    x = builder.input(LARGE)
    return builder.graph(*(builder.node(op, x) for op in operators))


def convolved() -> Graph:
    builder = GraphBuilder()
    weights = np.random.default_rng(0).standard_normal((32, 64, 3, 3)).astype(np.float32)
    x = builder.input(LARGE)
    return builder.graph(
        builder.node(Conv(pads=(1, 1, 1, 1)), x, builder.constant(weights)),
    )


def read_back() -> Graph:
    """An output that a later step reads, which is an output as well."""
    builder = GraphBuilder()
    first = builder.node(Relu(), builder.input(LARGE))
    return builder.graph(first, builder.node(Add(), first, first))


def passed_on() -> Graph:
    builder = GraphBuilder()
    x = builder.input(LARGE)
    return builder.graph(x, builder.node(Relu(), x))


def products() -> Graph:
    builder = GraphBuilder()
    return builder.graph(
        builder.node(MatMul(), builder.input((130, 200)), builder.input((200, 97)))
    )


BORROWED: dict[str, tuple[Graph, set[str]]] = {
    "read and written by generated kernels": (added(), {"x0", "x1", "v1"}),
    "too small": (added((1, 15)), set()),
    "left to NumPy": (added(dtype=FLOAT64), set()),
    "through copies between layouts": (convolved(), {"x0", "v0@host"}),
    "read by a view": (read_by(Relu(), Flatten()), {"v0"}),
    "read by what works on objects": (read_by(Relu(), NonZero()), {"v0"}),
    "read after it was written": (read_back(), {"x0", "v0", "v1"}),
    "input and output": (passed_on(), {"v0"}),
    "products": (products(), {"x0", "x1"}),
}


@pytest.mark.parametrize("case", BORROWED)
def test_what_is_borrowed(case: str) -> None:
    graph, expected = BORROWED[case]
    session = mnnpy.Session(graph, backend="numba")
    feeds = random_feeds(graph)
    bound = session.executable(feeds)
    assert bound.plan.memory.borrowed == expected
    assert isinstance(bound, Executable)
    assert check_memory(bound.plan, bound.values, with_fallbacks("numba")) == ()
    assert_close(session.run(feeds), mnnpy.Session(graph, backend="numpy").run(feeds))


def _columns(array: Array) -> Array:
    return np.asfortranarray(array)


def _every_other(array: Array) -> Array:
    return np.repeat(array, 2, axis=-1)[..., ::2]


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _unaligned(array: Array) -> Array:
    room = np.zeros(array.nbytes + 1, np.uint8)
    found = room[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


@pytest.mark.parametrize("arranged", [_columns, _every_other, _read_only, _unaligned])
def test_arrays_of_any_kind(arranged: Callable[[Array], Array]) -> None:
    graph = added()
    session = mnnpy.Session(graph, backend="numba")
    for seed in range(3):
        feeds = random_feeds(graph, seed)
        (found,) = session.run({name: arranged(array) for name, array in feeds.items()}).values()
        assert np.array_equal(found, np.maximum(feeds["x0"], 0) + feeds["x1"])


def test_one_array_for_two_inputs() -> None:
    x = random_feeds(added())["x0"]
    (found,) = mnnpy.Session(added(), backend="numba").run([x, x]).values()
    assert np.array_equal(found, np.maximum(x, 0) + x)


def test_outputs_belong_to_the_caller() -> None:
    graph = added()
    session = mnnpy.Session(graph, backend="numba")
    runs = [random_feeds(graph, seed) for seed in range(3)]
    found = [session.run(feeds)["v1"] for feeds in runs]
    for feeds, output in zip(runs, found, strict=True):
        assert np.array_equal(output, np.maximum(feeds["x0"], 0) + feeds["x1"])
    assert not any(np.shares_memory(a, b) for a in found for b in found if a is not b)


def test_step_by_step_between_runs() -> None:
    """Callbacks see what is fed, and what they replace does not reach the caller's arrays."""
    graph = added()
    session = mnnpy.Session(graph, backend="numba")
    feeds = random_feeds(graph)
    kept = {name: array.copy() for name, array in feeds.items()}
    wanted = session.run(feeds)
    seen: dict[str, Array] = {}

    def replace(_: object, reads: Mapping[str, Array]) -> dict[str, Array]:
        seen.update({name: array.copy() for name, array in reads.items()})
        return {"x1": np.zeros(LARGE, np.float32)} if "x1" in reads else {}

    (replaced,) = session.run_with_callbacks(feeds, before=replace).values()
    assert np.array_equal(replaced, np.maximum(feeds["x0"], 0))
    assert np.array_equal(seen["x0"], feeds["x0"])
    assert all(np.array_equal(feeds[name], array) for name, array in kept.items())
    assert_close(session.run(feeds), wanted, 0)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.usefixtures("everything_borrowed")
def test_random_graphs(seed: int) -> None:
    graph = random_graph(seed)
    feeds = random_feeds(graph)
    session = mnnpy.Session(graph, backend="numba")
    for _ in range(2):
        assert_close(session.run(feeds), mnnpy.Session(graph, backend="numpy").run(feeds))


def fenced(content: Array, at_end: bool) -> Array:
    """A copy that begins behind a page, or ends in front of one, that nobody may touch."""
    page = mmap.PAGESIZE
    room = -(-content.nbytes // page) * page
    whole = np.frombuffer(mmap.mmap(-1, room + 2 * page), np.uint8)
    for place in (0, page + room):
        fence = ctypes.c_void_p(address_of(whole) + place)
        assert ctypes.CDLL(None).mprotect(fence, ctypes.c_size_t(page), 0) == 0
    start = page + (room - content.nbytes if at_end else 0)
    inside = whole[start : start + content.nbytes].view(content.dtype).reshape(content.shape)
    inside[...] = content
    return inside


@pytest.mark.skipif(sys.platform != "linux", reason="fences are made of Linux's pages")
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("seed", range(0, 40, 4))
@pytest.mark.usefixtures("everything_borrowed")
def test_nothing_beyond_the_arrays_is_touched(seed: int, at_end: bool) -> None:
    """What would be is the end of this process."""
    graph = random_graph(seed)
    feeds = random_feeds(graph)
    bound = mnnpy.Session(graph, backend="numba").executable(feeds)
    assert isinstance(bound, Executable)
    wanted = mnnpy.Session(graph, backend="numpy").run(feeds)
    outputs = {name: fenced(np.zeros_like(a), at_end) for name, a in wanted.items()}
    with bound.entered():
        bound.execute({name: fenced(a, at_end) for name, a in feeds.items()}, outputs)
        bound.write_outputs(outputs)
    assert_close(outputs, wanted)
