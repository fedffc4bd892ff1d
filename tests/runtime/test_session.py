"""Sessions: feeds in every form, errors, ownership, threads, processes, caches."""

from __future__ import annotations

import os
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.errors import BackendError, ConfigError, ExecutionError, FeedError, MnnpyError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import BOOL, FLOAT32, INT64, STRING, TensorType
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.control import Loop
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Identity, Mul, Sub
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.selection import NonZero
from mnnpy.runtime.ops.sequence import SequenceConstruct
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.text import StringConcat
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Step
from mnnpy.runtime.session import Session
from tests.runtime.graphs import GraphBuilder, assert_close, random_feeds

N = SymbolicDim.named("batch")


def one_input() -> Graph:
    b = GraphBuilder()
    return b.graph(b.node(Relu(), b.input((N, 3))))


def two_inputs() -> Graph:
    b = GraphBuilder()
    return b.graph(b.node(Sub(), b.input((2, 3)), b.input((N, 3))))


def session(graph: Graph, **options: Any) -> Session:
    return Session(graph, **{"backend": "numpy", **options})


X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
Y = np.full((2, 3), 2, np.float32)


@pytest.mark.parametrize(
    ("graph", "feeds", "expected"),
    [
        (one_input, X, np.maximum(X, 0)),
        (one_input, [X], np.maximum(X, 0)),
        (one_input, (X,), np.maximum(X, 0)),
        (one_input, {"x0": X}, np.maximum(X, 0)),
        (one_input, X.tolist(), np.maximum(X, 0)),
        (one_input, {"x0": X.tolist()}, np.maximum(X, 0)),
        (two_inputs, [X, Y], X - Y),
        (two_inputs, (X, Y), X - Y),
        (two_inputs, {"x1": Y, "x0": X}, X - Y),
    ],
)
def test_feeds_in_every_form(graph: Callable[[], Graph], feeds: Any, expected: Any) -> None:
    outputs = session(graph()).run(feeds)
    assert list(outputs) == list(graph().outputs)
    assert_close(outputs, dict.fromkeys(outputs, expected))


def indices(dtype: Any = INT64) -> Graph:
    b = GraphBuilder()
    return b.graph(b.node(Identity(), b.input((1,), dtype)))


def small() -> Graph:
    return indices(np.uint8)


class Pretender:
    """Says that it is an array, and fails when asked for it."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("gone")


WRONG_FEEDS: dict[str, tuple[Callable[[], Graph], Any, list[str]]] = {
    "missing": (two_inputs, {"x0": X}, ["missing: 'x1'", "inputs are 'x0', 'x1'"]),
    "unknown": (one_input, {"x0": X, "z": X}, ["unknown: 'z'", "inputs are 'x0'"]),
    "misspelt": (one_input, {"X": X}, ["missing: 'x0'", "unknown: 'X'"]),
    "too few": (two_inputs, [X], ["1 feeds for 2 inputs ('x0', 'x1')"]),
    "too many": (one_input, [X, X], ["2 feeds for 1 inputs ('x0')"]),
    "nothing": (one_input, None, ["missing: 'x0'"]),
    "one for two": (two_inputs, X, ["one array was given, the model has 2 inputs"]),
    "dtype": (
        one_input,
        X.astype(np.float64),
        ["input 'x0' takes float32(batch, 3)", "got float64(2, 3)", ".astype('float32')"],
    ),
    "integers": (one_input, X.astype(np.int64), ["got int64(2, 3)"]),
    "rank": (one_input, X[0], ["of rank 2", "got shape (3,) of rank 1"]),
    "fixed dimension": (one_input, X[:, :2], ["got shape (2, 2)", "axis 1 must be 3, not 2"]),
    "second input": (two_inputs, [X, X[:, :1]], ["input 'x1'", "axis 1 must be 3, not 1"]),
    "ragged list": (one_input, [[1.0, 2.0], [3.0]], ["input 'x0' takes float32(batch, 3)"]),
    "fractions": (indices, [0.5], ["input 'x0' takes int64(1)", "would lose their fractions"]),
    "beyond the range": (small, [300], ["input 'x0' takes uint8(1)"]),
    "a failing array": (one_input, Pretender(), ["got a Pretender that is no such array: gone"]),
    "words": (one_input, [["a", "b", "c"]], ["input 'x0' takes float32(batch, 3)"]),
}


@pytest.mark.parametrize("case", WRONG_FEEDS)
def test_wrong_feeds_are_named(case: str) -> None:
    graph, feeds, said = WRONG_FEEDS[case]
    with pytest.raises(FeedError) as caught:
        session(graph()).run(feeds)
    assert all(text in str(caught.value) for text in said), caught.value


@pytest.mark.parametrize(
    "array",
    [
        X.T.copy().T,
        np.repeat(X, 2, axis=0)[::2],
        np.repeat(X, 2, axis=1)[:, ::2],
        X[::-1],
        np.broadcast_to(X[:1], (4, 3)),
        np.zeros((0, 3), np.float32),
        X.astype(">f4"),
        np.frombuffer(X.tobytes(), np.float32).reshape(2, 3),
    ],
    ids=["fortran", "rows", "columns", "reversed", "broadcast", "empty", "big-endian", "read-only"],
)
def test_arrays_of_every_kind(array: Any) -> None:
    graph = one_input()
    before = array.copy()
    outputs = session(graph).run(array)
    assert_close(outputs, {graph.outputs[0]: np.maximum(before, 0).astype(np.float32)})
    assert np.array_equal(array, before)


def test_scalars() -> None:
    b = GraphBuilder()
    graph = b.graph(b.node(Add(), b.input(()), b.input(())))
    for feeds in ([np.float32(1), np.float32(2)], [1.0, 2], {"x0": 1, "x1": np.array(2, "f4")}):
        assert session(graph).run(feeds)[graph.outputs[0]] == 3


def passthrough() -> Graph:
    """An input and a constant that are outputs themselves, and a view of an input."""
    b = GraphBuilder()
    x = b.input((2, 3))
    return b.graph(x, b.constant(np.ones(3, np.float32)), b.node(Identity(), x))


@pytest.mark.parametrize("build", [one_input, two_inputs, passthrough])
def test_outputs_belong_to_the_caller(build: Callable[[], Graph]) -> None:
    graph = build()
    opened = session(graph)
    feeds = {name: X.copy() for name in graph.inputs}
    first = opened.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    opened.run(dict.fromkeys(graph.inputs, Y))
    assert_close(first, kept)
    for array in first.values():
        array[...] = 99
    assert all(np.array_equal(feed, X) for feed in feeds.values())
    assert_close(opened.run(feeds), kept)


def test_strings_pass_through() -> None:
    b = GraphBuilder()
    graph = b.graph(b.node(Identity(), b.input((2,), STRING)))
    (output,) = session(graph).run(np.array(["ä", ""], object)).values()
    assert output.tolist() == ["ä", ""]


def test_what_a_session_says_of_itself() -> None:
    opened = session(two_inputs())
    assert [(i.name, i.dtype, i.shape) for i in opened.inputs] == [
        ("x0", "float32", (2, 3)),
        ("x1", "float32", ("batch", 3)),
    ]
    assert [output.name for output in opened.outputs] == ["v0"]
    assert opened.backend == "numpy"


def deep() -> Graph:
    """Convolutions with residuals: everything in the arena is written again and again."""
    b = GraphBuilder()
    x = b.input((N, 4, 12, 12))
    weights = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
    w = b.constant(weights)
    for _ in range(4):
        y = b.node(Relu(), b.node(Conv(pads=(1, 1, 1, 1)), x, w))
        x = b.node(Add(), b.node(Conv(pads=(1, 1, 1, 1)), y, w), x)
    return b.graph(x)


def test_threads_may_share_a_session() -> None:
    graph = deep()
    opened = session(graph)
    rng = np.random.default_rng(1)
    feeds = [rng.standard_normal((1 + i % 3, 4, 12, 12)).astype(np.float32) for i in range(8)]
    expected = [evaluate(graph, np, {"x0": feed}) for feed in feeds]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(10):
                assert_close(opened.run(feeds[index]), expected[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_is_refused_even_while_a_run_is_under_way() -> None:
    opened = session(one_input())
    opened.run(X)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with opened._exclusive():
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            opened.run(X)
            said = "it ran"
        except BackendError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    let_go.set()
    thread.join()
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert "made before os.fork()" in said
    assert "make the session in the child" in said


def test_pickling_takes_the_model_and_the_options() -> None:
    opened = session(deep(), threads=1)
    feeds = np.ones((1, 4, 12, 12), np.float32)
    expected = opened.run(feeds)
    again = pickle.loads(pickle.dumps(opened))
    assert again.threads == 1
    assert_close(again.run(feeds), expected)


def test_a_context_manager_frees_and_can_be_used_again() -> None:
    with session(deep()) as opened:
        expected = opened.run(np.ones((1, 4, 12, 12), np.float32))
        assert opened._executables
    assert not opened._executables
    assert_close(opened.run(np.ones((1, 4, 12, 12), np.float32)), expected)


def test_an_endless_loop_is_refused() -> None:
    inputs = {"i": TensorType(INT64, ()), "go": TensorType(BOOL, ()), "s": TensorType(FLOAT32, ())}
    nodes = (Node("add", Add(), ("s", "s"), ("t",)), Node("same", Identity(), ("go",), ("on",)))
    b = GraphBuilder()
    start = b.input(())
    y = b.node(Loop(Graph(nodes, inputs, ("on", "t")).validate(), 1), None, None, start)
    with pytest.raises(ExecutionError, match="never ends: it has no trip count"):
        session(b.graph(y)).run(np.float32(1))


def test_callbacks_see_what_is_read_and_written() -> None:
    graph = deep()
    feeds = np.ones((1, 4, 12, 12), np.float32)
    everything = evaluate(graph, np, {"x0": feeds}, keep=True)
    events: list[tuple[str, str]] = []

    def watch(when: str) -> Callable[[Step, Mapping[str, Any]], None]:
        def callback(step: Step, arrays: Mapping[str, Any]) -> None:
            events.append((when, step.node.name))
            assert arrays
            assert_close(arrays, {name: everything[name] for name in arrays})

        return callback

    opened = session(graph)
    outputs = opened.run_with_callbacks(feeds, before=watch("before"), after=watch("after"))
    assert_close(outputs, {name: everything[name] for name in graph.outputs})
    names = [step.node.name for step in opened.plan({"x0": feeds.shape}).steps]
    assert events == [(when, name) for name in names for when in ("before", "after")]
    assert_close(opened.run_with_callbacks(feeds), outputs)
    assert_close(opened.run_with_callbacks(feeds, after=watch("after")), outputs)


def test_what_before_returns_replaces_what_a_step_reads() -> None:
    b = GraphBuilder()
    x = b.input((2, 3))
    first = b.node(Identity(), x)
    picked = b.node(NonZero(), b.node(Add(), first, x))
    y = b.node(Add(), picked, b.constant(np.array(1)))
    opened = session(b.graph(y))
    read: list[str] = []

    def before(step: Step, arrays: Mapping[str, Any]) -> dict[str, Any]:
        read.extend(arrays)
        changed = {"x0": -X, "c0": np.array(7), picked: np.arange(12).reshape(2, 6)}
        return {name: changed[name] for name in arrays if name in changed}

    found = opened.run_with_callbacks(X, before)
    np.testing.assert_array_equal(found[y], np.arange(12).reshape(2, 6) + 1)
    assert {"x0", "c0", picked} <= set(read)


def test_a_failing_kernel_names_its_step() -> None:
    opened = session(one_input())

    def fail() -> None:
        raise ValueError("no such number")

    opened.executable(X).step_runs[0] = fail
    with pytest.raises(ExecutionError, match="Relu node 'Relu_0' failed on numpy") as caught:
        opened.run_with_callbacks(X)
    assert "no such number" in str(caught.value)


def test_a_failing_run_names_its_step() -> None:
    b = GraphBuilder()
    x, places = b.input((3,)), b.input((2,), INT64)
    opened = session(b.graph(b.node(Relu(), b.node(Gather(), x, places))))
    feeds = {x: np.ones(3, np.float32), places: np.array([0, 7])}
    with pytest.raises(ExecutionError, match=r"Gather node 'Gather_0' failed on numpy.*index 7"):
        opened.run(feeds)
    feeds[places] = np.array([0, 2])
    opened.run(feeds)


def test_intermediate_values_on_request() -> None:
    graph = deep()
    feeds = {"x0": np.ones((2, 4, 12, 12), np.float32)}
    everything = evaluate(graph, np, feeds, keep=True)
    opened = session(graph)
    for names in (["v0"], ["v0", "v3", "x0", "c0"], list(graph.outputs), ["v0"]):
        assert_close(opened.run(feeds, outputs=names), {name: everything[name] for name in names})
    with pytest.raises(FeedError, match="no value 'nonsense'"):
        opened.run(feeds, outputs=["nonsense"])


def test_the_plan_cache_is_bounded() -> None:
    opened = session(one_input())
    for batch in range(1, 40):
        opened.run(np.zeros((batch, 3), np.float32))
    assert len(opened._executables) == 16
    first = opened.executable(np.zeros((39, 3), np.float32))
    opened.run(np.zeros((40, 3), np.float32))
    assert opened.executable(np.zeros((39, 3), np.float32)) is first


def _network() -> Graph:
    builder = GraphBuilder()
    x, y = builder.input(("n", 4)), builder.input((4,))
    return builder.graph(builder.node(Relu(), builder.node(Add(), x, y)))


class _Subclass(np.ndarray[Any, Any]):
    """An array of another type."""


ONES = np.ones((2, 4), np.float32)
TERM = np.full(4, -0.5, np.float32)
AGAIN: dict[str, tuple[Any, str | None]] = {
    "the same": ({"x0": ONES, "x1": TERM}, None),
    "in another order": ({"x1": TERM, "x0": ONES}, None),
    "as a list": ([ONES, TERM], None),
    "of another type": ({"x0": ONES.view(_Subclass), "x1": TERM}, None),
    "of another shape": ({"x0": ONES[:1], "x1": TERM}, None),
    "of numbers": ({"x0": ONES.tolist(), "x1": TERM}, None),
    "of another element type": ({"x0": ONES.astype(np.float64), "x1": TERM}, "float64"),
    "of too few": ({"x0": ONES}, "missing: 'x1'"),
    "of too many": ({"x0": ONES, "x1": TERM, "x2": TERM}, "unknown: 'x2'"),
    "of another name": ({"x0": ONES, "other": TERM}, "missing: 'x1'"),
    "of another rank": ({"x0": ONES, "x1": TERM[None]}, "rank"),
}


@pytest.mark.parametrize("feeds", AGAIN)
def test_a_second_run_checks_what_differs_from_the_first(feeds: str) -> None:
    opened = session(_network())
    opened.run([ONES, TERM])
    given, said = AGAIN[feeds]
    if said is None:
        rows = 1 if feeds == "of another shape" else 2
        (found,) = opened.run(given).values()
        np.testing.assert_array_equal(found, np.full((rows, 4), 0.5))
    else:
        with pytest.raises(FeedError, match=said):
            opened.run(given)
    (again,) = opened.run({"x0": 2 * ONES, "x1": TERM}).values()
    np.testing.assert_array_equal(again, np.full((2, 4), 1.5))


def test_other_outputs_and_callbacks_between_runs() -> None:
    opened, feeds = session(_network()), {"x0": ONES, "x1": -2 * ONES[0]}
    for _ in range(2):
        assert (opened.run(feeds)["v1"] == 0).all()
        assert (opened.run(feeds, outputs=["v0"])["v0"] == -1).all()
        assert (opened.run_with_callbacks(feeds)["v1"] == 0).all()


def test_plans_share_what_does_not_depend_on_shapes() -> None:
    opened = session(deep())
    opened.run(np.zeros((1, 4, 12, 12), np.float32))
    held = opened._packed.nbytes
    for batch in (2, 3, 1):
        opened.run(np.zeros((batch, 4, 12, 12), np.float32))
    assert opened._packed.nbytes == held
    opened._executables.clear()
    opened._latest = None
    assert opened._packed.nbytes == 0


def test_a_run_allocates_its_outputs_and_numpys_own_buffers() -> None:
    graph = deep()
    feeds = np.ones((256, 4, 12, 12), np.float32)
    opened = session(graph)
    outputs = opened.run(feeds)
    tracemalloc.start()
    try:
        opened.run(feeds)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < sum(array.nbytes for array in outputs.values()) + 3 * np.getbufsize() * 4 + 16384


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (None, "give a number for every axis"),
        ({"x0": ("batch", 3)}, "give a number for every axis"),
        ({"z": (2, 3)}, "unknown inputs"),
        ({"x0": (2, 4)}, "takes float32(batch, 3), not shape (2, 4)"),
        ({"x0": (2,)}, "takes float32(batch, 3), not shape (2,)"),
        ({"x0": 2}, "takes a shape such as (1, 3), not 2"),
        (2, "takes a shape such as (1, 3), not 2"),
        ((-1, 3), "give a number for every axis"),
        ((1.5, 3), "give a number for every axis"),
    ],
)
def test_shapes_that_cannot_be_planned(shapes: Any, said: str) -> None:
    with pytest.raises(FeedError) as caught:
        session(one_input()).plan(shapes)
    assert said in str(caught.value)


def test_one_shape_for_two_inputs() -> None:
    with pytest.raises(FeedError, match="one shape for 2 inputs: give shapes by name"):
        session(two_inputs()).plan((2, 3))


def test_plans_by_shape() -> None:
    opened = session(one_input())
    assert opened.plan((2, 3)) == opened.plan({"x0": (2, 3)})
    opened.prepare((np.int64(5), 3))
    assert opened.run(np.zeros((5, 3), np.float32))["v0"].shape == (5, 3)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backend": "nonsense"}, BackendError, "there is no backend 'nonsense'; installed are"),
        ({"precision": "exact"}, ConfigError, "precision 'exact' is not one of high"),
        ({"threads": 0}, ConfigError, "threads must be a whole number of at least 1, not 0"),
        ({"threads": "2"}, ConfigError, "threads must be a whole number of at least 1, not '2'"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[MnnpyError], said: str) -> None:
    with pytest.raises(error) as caught:
        session(one_input(), **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "named",
    [
        {"allowed": {"Relu": frozenset({"elementwize"})}},
        {"forbidden": {"Relu": frozenset({"view", "elementwize"})}},
        {"pinned": {"Relu_0": ("numpy", "elementwize", None)}},
    ],
)
def test_constraints_name_schemes_that_there_are(named: dict[str, Any]) -> None:
    said = "no backend has a scheme 'elementwize'; there are .*conv_im2col, .*elementwise, "
    with pytest.raises(ConfigError, match=said):
        session(one_input(), constraints=Constraints(**named))


@pytest.mark.parametrize(
    ("op", "element"),
    [(NonZero(), FLOAT32), (StringConcat(), STRING), (SequenceConstruct(), FLOAT32)],
)
def test_strict_refuses_steps_on_objects(op: Op, element: Any) -> None:
    """NumPy runs what works on objects, whatever backend was asked for."""
    b = GraphBuilder()
    x = b.input((2,), element)
    graph = b.graph(b.node(op, *([x, x] if element == STRING else [x])))
    feeds = {x: np.array(["a", "b"], object) if element == STRING else np.ones(2, np.float32)}
    session(graph, strict=True).run(feeds)
    session(graph, backend="numba").run(feeds)
    with pytest.raises(BackendError, match=f"strict mode: {op.kind} node .* runs on numpy"):
        session(graph, backend="numba", strict=True).run(feeds)


def test_strict_accepts_what_the_backend_runs() -> None:
    assert_close(session(one_input(), strict=True).run(X), {"v0": np.maximum(X, 0)})


def test_integers_and_mixed_types() -> None:
    b = GraphBuilder()
    x = b.input((2, 3), INT64)
    graph = b.graph(b.node(Mul(), x, b.node(Transpose((0, 1)), x)))
    feeds = random_feeds(graph)
    assert_close(session(graph).run(feeds), evaluate(graph, np, feeds))
    assert FLOAT32 not in {array.dtype for array in session(graph).run(feeds).values()}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_constants_may_lie_transposed(backend: str) -> None:
    """As what NumPy evaluates from a permuted array does; native kernels read plain memory."""
    weights = np.arange(12, dtype=np.float32).reshape(3, 4).T
    b = GraphBuilder()
    x = b.input((4, 3))
    graph = b.graph(b.node(Relu(), b.node(Add(), x, b.constant(weights))))
    (found,) = Session(graph, backend=backend).run(np.zeros((4, 3), np.float32)).values()
    np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_picture_may_be_a_constant(backend: str) -> None:
    """No step writes it, so no kernel may want it with a border."""
    random = np.random.default_rng(0)
    picture, weights = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((1, 2, 16, 16), (64, 2, 7, 7))
    )
    b = GraphBuilder()
    y = b.node(Conv(pads=(3, 3, 3, 3)), b.constant(picture), b.constant(weights))
    graph = b.graph(b.node(Add(), y, b.input((1, 64, 16, 16))))
    feeds = random_feeds(graph)
    assert_close(Session(graph, backend=backend).run(feeds), evaluate(graph, np, feeds))
