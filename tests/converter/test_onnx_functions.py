"""Functions, the model's own and ONNX's, are expanded into the operators that they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from mnnpy.converter import onnx_reader
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.runtime.errors import InvalidModelError, UnsupportedOperatorError
from mnnpy.runtime.graph.evaluate import evaluate

X = np.array([[-2.0, -0.5, 0.0], [0.25, 1.0, 3.0]], dtype=np.float32)

HEAD = '<ir_version: 10, opset_import: ["" : 18, "own" : 1]>'
OWN = '<opset_import: ["" : 18, "own" : 1], domain: "own">'


def run(text: str, **feeds: Any) -> dict[str, Any]:
    graph = read_graph(onnx.parser.parse_model(text))
    return evaluate(graph, np, feeds)


WORKING: dict[str, tuple[str, Any]] = {
    "one function": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.twice(x) }}
        {OWN} twice (a) => (b) {{ b = Add(a, a) }}""",
        2 * X,
    ),
    "two calls do not share names": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            t = own.inc(x)
            y = own.inc(t) }}
        {OWN} inc (a) => (b) {{
            one = Constant<value_float = 1.0>()
            b = Add(a, one) }}""",
        X + 2,
    ),
    "a function calls another": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.four(x) }}
        {OWN} twice (a) => (b) {{ b = Add(a, a) }}
        {OWN} four (a) => (b) {{
            t = own.twice(a)
            b = own.twice(t) }}""",
        4 * X,
    ),
    "an older opset inside": (
        f"""{HEAD} g (float[2,3] x) => (float[2] y) {{ y = own.total(x) }}
        <opset_import: ["" : 11], domain: "own"> total (a) => (b) {{
            b = ReduceSum<axes = [1], keepdims = 0>(a) }}""",
        X.sum(1),
    ),
    "a newer opset inside": (
        """<ir_version: 10, opset_import: ["" : 11, "own" : 1]>
        g (float[2,3] x) => (float[2] y) { y = own.total(x) }
        <opset_import: ["" : 18], domain: "own"> total (a) => (b) {
            axes = Constant<value_ints = [1]>()
            b = ReduceSum<keepdims = 0>(a, axes) }""",
        X.sum(1),
    ),
    "an attribute given": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.leak<slope = 0.5>(x) }}
        {OWN} leak <slope> (a) => (b) {{ b = LeakyRelu<alpha : float = @slope>(a) }}""",
        np.where(X < 0, X / 2, X),
    ),
    "an attribute by default": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.leak(x) }}
        {OWN} leak <slope : float = 0.5> (a) => (b) {{
            b = LeakyRelu<alpha : float = @slope>(a) }}""",
        np.where(X < 0, X / 2, X),
    ),
    "an attribute left out": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.leak(x) }}
        {OWN} leak <slope> (a) => (b) {{ b = LeakyRelu<alpha : float = @slope>(a) }}""",
        np.where(X < 0, np.float32(0.01) * X, X),
    ),
    "an attribute handed on": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.outer<s = 0.5>(x) }}
        {OWN} leak <slope> (a) => (b) {{ b = LeakyRelu<alpha : float = @slope>(a) }}
        {OWN} outer <s> (a) => (b) {{ b = own.leak<slope : float = @s>(a) }}""",
        np.where(X < 0, X / 2, X),
    ),
    "an input left out": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            top = Constant<value_float = 1.0>()
            y = own.limit(x, "", top) }}
        {OWN} limit (a, low, high) => (b) {{ b = Clip(a, low, high) }}""",
        np.minimum(X, 1),
    ),
    "an output left out": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ "", y = own.both(x) }}
        {OWN} both (a) => (b, c) {{
            b = Neg(a)
            c = Neg(b) }}""",
        X,
    ),
    "an input that is an output": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            t, u = own.pass(x)
            y = Add(t, u) }}
        {OWN} pass (a) => (a, b) {{ b = Neg(a) }}""",
        0 * X,
    ),
    "inside a branch, with a branch that captures": (
        f"""{HEAD} g (float[2,3] x, bool c) => (float[2,3] y) {{
            y = If(c)<then_branch = t () => (float[2,3] p) {{ p = own.choose(x, c) }},
                      else_branch = e () => (float[2,3] q) {{ q = Neg(x) }}> }}
        {OWN} choose (a, c) => (b) {{
            n = Neg(a)
            b = If(c)<then_branch = t () => (float[2,3] p) {{ p = Mul(n, a) }},
                      else_branch = e () => (float[2,3] q) {{ q = Abs(n) }}> }}""",
        -X * X,
    ),
}


@pytest.mark.parametrize(("text", "wanted"), WORKING.values(), ids=WORKING)
def test_own_functions_are_expanded(text: str, wanted: Any) -> None:
    feeds = {"x": X, "c": np.array(True)} if "bool c" in text else {"x": X}
    np.testing.assert_array_equal(run(text, **feeds)["y"], wanted)


REFUSED = {
    "itself": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f(x) }}
        {OWN} f (a) => (b) {{ b = own.f(a) }}""",
        "calls itself",
    ),
    "each other": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f(x) }}
        {OWN} f (a) => (b) {{ b = own.h(a) }}
        {OWN} h (a) => (b) {{ b = own.f(a) }}""",
        "calls itself",
    ),
    "defined twice": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f(x) }}
        {OWN} f (a) => (b) {{ b = Neg(a) }}
        {OWN} f (a) => (b) {{ b = Abs(a) }}""",
        "defined twice",
    ),
    "too many inputs": (
        f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f(x, x) }}
        {OWN} f (a) => (b) {{ b = Neg(a) }}""",
        "2 inputs",
    ),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_wrong_functions_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidModelError, match=reason):
        run(text, x=X)


def test_functions_that_explode_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_reader, "_MOST_EXPANDED", 1000)
    doubling = "\n".join(
        f"""{OWN} f{i} (a) => (b) {{
            t = own.f{i + 1}(a)
            b = own.f{i + 1}(t) }}"""
        for i in range(60)
    )
    text = f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f0(x) }}
    {doubling}
    {OWN} f60 (a) => (b) {{ b = Neg(a) }}"""
    with pytest.raises(InvalidModelError, match="over 1000 nodes"):
        run(text, x=X)


def test_calls_that_go_too_deep_are_refused() -> None:
    chain = "\n".join(f"{OWN} f{i} (a) => (b) {{ b = own.f{i + 1}(a) }}" for i in range(200))
    text = f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f0(x) }}
    {chain}
    {OWN} f200 (a) => (b) {{ b = Neg(a) }}"""
    with pytest.raises(InvalidModelError, match="over 100 deep"):
        run(text, x=X)


def test_unknown_operators_inside_functions_are_listed() -> None:
    text = f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = own.f(x) }}
    {OWN} f (a) => (b) {{ b = own.nowhere(a) }}"""
    with pytest.raises(UnsupportedOperatorError, match=r"own\.nowhere"):
        run(text, x=X)


DEFINED_BY_ONNX = {
    "AffineGrid": "(float[2,2,3] t) => (float[A,B,C,D] y) "
    "{ s = Constant<value_ints = [2, 1, 2, 3]>() y = AffineGrid(t, s) }",
    "CastLike": "(float[2,3] x, int64[1] i) => (int64[2,3] y) { y = CastLike(x, i) }",
    "Clip": "(float[2,3] x, float m) => (float[2,3] y) { y = Clip(x, m) }",
    "Elu": "(float[2,3] x) => (float[2,3] y) { y = Elu(x) }",
    "Gelu": "(float[2,3] x) => (float[2,3] y) { y = Gelu(x) }",
    "HardSigmoid": "(float[2,3] x) => (float[2,3] y) { y = HardSigmoid<alpha = 0.3>(x) }",
    "LayerNormalization": "(float[2,3] x, float[3] s) => (float[2,3] y, float[2,1] m) "
    "{ y, m = LayerNormalization(x, s) }",
    "Mish": "(float[2,3] x) => (float[2,3] y) { y = Mish(x) }",
    "RMSNormalization": "(float[2,3] x, float[3] s) => (float[2,3] y) "
    "{ y = RMSNormalization(x, s) }",
    "ReduceSumSquare": "(float[2,3] x) => (float[1,1] y) { y = ReduceSumSquare(x) }",
    "Softmax": "(float[2,3] x) => (float[2,3] y) { n = Neg(x) y = Softmax<axis = 0>(n) }",
    "Swish": "(float[2,3] x) => (float[2,3] y) { y = Swish(x) }",
}
FEEDS = {
    "x": X,
    "t": np.array([[[1, 0.5, 0], [0, 1, 0.25]], [[2, 0, 0], [0, 1, 1]]], dtype=np.float32),
    "i": np.zeros(1, dtype=np.int64),
    "m": np.array(0.1, dtype=np.float32),
    "s": np.array([1, 2, 3], dtype=np.float32),
}


@pytest.mark.parametrize(("op_type", "text"), DEFINED_BY_ONNX.items(), ids=DEFINED_BY_ONNX)
def test_operators_without_importer_are_expanded_as_onnx_defines_them(
    op_type: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'<ir_version: 11, opset_import: ["" : 24]> g {text}'
    feeds = {name: array for name, array in FEEDS.items() if f" {name}" in text.split("=>")[0]}
    wanted = run(text, **feeds)
    find = onnx_reader.find_importer
    monkeypatch.setattr(
        onnx_reader,
        "find_importer",
        lambda domain, name, version: None if name == op_type else find(domain, name, version),
    )
    found = run(text, **feeds)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
