"""Whole models through all passes: what is left, the same outputs, and how long it takes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.models import MODELS
from mnnpy.converter.listing import describe
from mnnpy.converter.onnx_file import load_onnx
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.converter.pipeline import convert, run_passes
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.model_file import load_model
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Exp, Log, Mul
from tests.converter.models import graph_of, kinds
from tests.runtime.graphs import assert_close, random_feeds, random_graph

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"

LEFT: dict[str, dict[str, int]] = {
    "resnet18": {"Conv": 20, "Add": 8, "Gemm": 1, "BatchNormalization": 0, "Mul": 0},
    "squeezenet1_1": {"Conv": 26, "Concat": 8},
    "mobilenet_v2": {"Conv": 52, "Clip": 35, "Add": 10, "BatchNormalization": 0},
    "bert_encoder": {"Attention": 4, "Gelu": 4, "LayerNormalization": 8, "MatMul": 24},
}


@pytest.mark.parametrize("name", LEFT)
def test_benchmark_model_keeps_its_outputs(name: str) -> None:
    before = read_graph(MODELS[name]())
    after = run_passes(before)
    counts = Counter(kinds(after))
    assert {kind: counts[kind] for kind in LEFT[name]} == LEFT[name]
    feeds = random_feeds(before)
    assert_close(evaluate(after, np, feeds), evaluate(before, np, feeds))


def test_symbolic_batch_changes_nothing_in_what_is_recognised() -> None:
    after = run_passes(read_graph(MODELS["bert_encoder"](batch="n", sequence=8)))
    counts = Counter(kinds(after))
    assert (counts["Attention"], counts["Gelu"]) == (4, 4)


def test_digits_keep_their_outputs() -> None:
    before = read_graph(load_onnx(DIGITS))
    after = run_passes(before)
    assert "BatchNormalization" not in kinds(after)
    (name,) = before.inputs
    feeds = {name: np.load(DIGITS.parent / "heldout.npz")["images"][:8, None].astype(np.float32)}
    assert_close(evaluate(after, np, feeds), evaluate(before, np, feeds))


@pytest.mark.parametrize("seed", range(150))
def test_random_graph_keeps_names_and_outputs(seed: int) -> None:
    graph = _with_frozen_inputs(random_graph(seed, size=20), seed)
    after = run_passes(graph)
    assert (after.outputs, after.inputs) == (graph.outputs, graph.inputs)
    feeds = random_feeds(graph, seed)
    wanted = evaluate(graph, np, feeds, keep=True)
    got = evaluate(after, np, feeds, keep=True)
    assert_close({name: got[name] for name in graph.outputs}, {n: wanted[n] for n in graph.outputs})
    surviving = set(graph.producers) & set(after.producers)
    assert_close({name: got[name] for name in surviving}, {n: wanted[n] for n in surviving})


def _with_frozen_inputs(graph: Graph, seed: int) -> Graph:
    """Some inputs turned into constants, so that there is something to fold."""
    rng = np.random.default_rng(seed)
    frozen = [name for name in list(graph.inputs)[1:] if rng.random() < 0.6]
    contents = {name: array for name, array in random_feeds(graph).items() if name in frozen}
    inputs = {name: declared for name, declared in graph.inputs.items() if name not in frozen}
    return replace(graph, inputs=inputs, constants={**graph.constants, **contents})


def test_ten_thousand_nodes_take_seconds() -> None:
    constants = {"w": np.ones((4, 4, 1, 1), np.float32)}
    nodes: list[Node] = []
    x = "x"
    for i in range(2500):
        nodes += [
            Node(f"conv{i}", Conv(), (x, "w"), (f"c{i}",)),
            Node(f"relu{i}", Relu(), (f"c{i}",), (f"r{i}",)),
            Node(f"mul{i}", Mul(), (f"r{i}", f"c{i}"), (f"m{i}",)),
            Node(f"add{i}", Add(), (f"m{i}", x), (f"a{i}",)),
        ]
        x = f"a{i}"
    graph = Graph(tuple(nodes), {"x": TensorType(FLOAT32, (1, 4, 8, 8))}, (x,), constants)
    started = time.perf_counter()
    assert len(run_passes(graph).nodes) == len(nodes)
    assert time.perf_counter() - started < 10


def test_long_chains_are_removed_in_one_go() -> None:
    text = "".join(f"t{i} = Transpose(t{i - 1}) " for i in range(1, 2001))
    graph = graph_of(f"(float[2,3] t0) => (float[2,3] y) {{{text} y = Exp(t2000)}}")
    assert kinds(run_passes(graph)) == ["Exp"]


def test_conversion_writes_a_file_and_listings(tmp_path: Path) -> None:
    target, folder = tmp_path / "digits.mnnpy", tmp_path / "passes"
    graph = convert(DIGITS, target, dump_passes=folder)
    assert load_model(target).fingerprint == graph.fingerprint
    listings = sorted(folder.iterdir())
    assert listings[0].name == "00_read.txt"
    assert any("absorb_following_affine" in path.name for path in listings)
    assert listings[-1].read_text(encoding="utf-8") == describe(graph)


def test_content_and_model_in_memory_convert_like_the_file() -> None:
    wanted = convert(DIGITS).fingerprint
    assert convert(DIGITS.read_bytes()).fingerprint == wanted
    assert convert(onnx.load(DIGITS)).fingerprint == wanted


def test_listing_shows_types_and_attributes_that_are_not_default() -> None:
    graph = graph_of("(float[n,2,4,4] x, float[3,2,3,3] W) => (float[n,3,2,2] y) {y = Conv(x, W)}")
    padded = replace(graph.nodes[0], op=Conv(pads=(1, 1, 1, 1)))
    assert describe(replace(graph, nodes=(padded,))).splitlines()[1:] == [
        "input x: float32(n, 2, 4, 4)",
        "y: float32(n, 3, 4, 4) = Conv(x, W) {pads=(1, 1, 1, 1)}  # Conv_0",
        "output y: float32(n, 3, 4, 4)",
        "constant W: float32(3, 2, 3, 3)",
    ]


def test_bodies_go_through_the_passes() -> None:
    graph = graph_of(
        """(float[3] x, bool c) => (float[3] y) {
        y = If(c) <then_branch = t () => (float[3] a) {
            s = Sigmoid(x) m = Mul(x, s) i = Identity(m) a = Identity(i) },
          else_branch = e () => (float[3] b) { b = Neg(x) }> }"""
    )
    (node,) = run_passes(graph).nodes
    bodies: Any = node.op
    assert kinds(bodies.then_branch) == ["Swish"]
    for condition in (True, False):
        feeds = {"x": np.arange(3, dtype=np.float32), "c": np.array(condition)}
        assert_close(evaluate(run_passes(graph), np, feeds), evaluate(graph, np, feeds))


def test_rules_that_undo_each_other_are_reported() -> None:
    def turn(subject: Subject, node: Node) -> Patch:
        op = Log() if isinstance(node.op, Exp) else Exp()
        return Patch((node,), (replace(node, op=op),))

    with pytest.raises(RuntimeError, match=r"undo each other.*turn"):
        apply_rules(graph_of("(float[3] x) => (float[3] y) {y = Exp(x)}"), turn)


def test_patch_that_drops_a_value_that_is_read_is_reported() -> None:
    graph = graph_of("(float[3] x) => (float[3] y) {a = Exp(x) y = Log(a)}")

    def drop(subject: Subject, node: Node) -> Patch | None:
        return Patch((node,)) if isinstance(node.op, Exp) else None

    with pytest.raises(RuntimeError, match="'a' is still read"):
        apply_rules(graph, drop)
