"""Formulas as exporters write them become the standard operators that they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnpy.converter.pipeline import run_passes
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.types import TensorType
from mnnpy.runtime.ops.activation import Gelu, HardSigmoid, Swish
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.normalization import LayerNormalization, RMSNormalization
from mnnpy.runtime.ops.reduction import LogSoftmax, Softmax
from tests.converter.models import graph_of, kinds
from tests.runtime.graphs import assert_close

X = "(float[2,3,4] x) => (float[2,3,4] y)"
ACTIVATION = f"""{X} <float half = {{0.5}}, float one = {{1}}, float root = {{1.4142135}},
    float inverse = {{0.70710678}}, float three = {{3}}, float six = {{6}}, float zero = {{0}},
    float cubic = {{0.044715}}, float c = {{0.7978846}}, float sixth = {{0.16666667}}>"""

ACTIVATIONS: dict[str, tuple[str, str]] = {
    "gelu, torch.jit": (
        "{a = Div(x, root) b = Erf(a) c1 = Add(b, one) d = Mul(x, c1) y = Mul(d, half)}",
        "Gelu",
    ),
    "gelu, torch.export": (
        "{h = Mul(half, x) a = Mul(inverse, x) b = Erf(a) c1 = Add(one, b) y = Mul(h, c1)}",
        "Gelu",
    ),
    "gelu, tf2onnx": (
        "{a = Mul(x, inverse) b = Erf(a) d = Add(b, one) e = Mul(d, half) y = Mul(e, x)}",
        "Gelu",
    ),
    "gelu, half inside": (
        "{a = Mul(x, inverse) b = Erf(a) d = Mul(b, half) e = Add(d, half) y = Mul(x, e)}",
        "Gelu",
    ),
    "gelu, another root": (
        "{a = Mul(x, half) b = Erf(a) d = Add(b, one) e = Mul(d, half) y = Mul(e, x)}",
        "Mul Erf Add Mul Mul",
    ),
    "gelu, looked into": (
        """{a = Mul(x, inverse) b = Erf(a) d = Add(b, one) e = Mul(d, half) f = Mul(e, x)
        y = Add(f, b)}""",
        "Mul Erf Add Mul Mul Add",
    ),
    "gelu with tanh, torch.jit": (
        """{xx = Mul(x, x) xxx = Mul(xx, x) a = Mul(cubic, xxx) b = Add(x, a) d = Mul(b, c)
        t = Tanh(d) e = Add(t, one) f = Mul(x, e) y = Mul(half, f)}""",
        "Gelu",
    ),
    "gelu with tanh, torch.export": (
        """{h = Mul(x, half) p = Pow(x, three) a = Mul(p, cubic) b = Add(x, a) d = Mul(c, b)
        t = Tanh(d) e = Add(one, t) y = Mul(h, e)}""",
        "Gelu",
    ),
    "gelu with tanh, factored": (
        """{s = Mul(x, c) q = Mul(cubic, x) r = Mul(q, x) b = Add(one, r) d = Mul(s, b)
        t = Tanh(d) e = Add(one, t) h = Mul(half, x) y = Mul(h, e)}""",
        "Gelu",
    ),
    "silu": ("{s = Sigmoid(x) y = Mul(x, s)}", "Swish"),
    "silu of a scaled input": ("{a = Mul(three, x) s = Sigmoid(a) y = Mul(s, x)}", "Swish"),
    "sigmoid of something else": ("{a = Exp(x) s = Sigmoid(a) y = Mul(x, s)}", "Exp Sigmoid Mul"),
    "hard sigmoid, clip to six": (
        "{a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)}",
        "HardSigmoid",
    ),
    "hard sigmoid, clip to one": (
        "{a = Mul(x, sixth) b = Add(a, half) y = Clip(b, zero, one)}",
        "HardSigmoid",
    ),
    "hard sigmoid, min and max": (
        "{a = Add(x, three) b = Max(a, zero) d = Min(b, six) y = Mul(d, sixth)}",
        "HardSigmoid",
    ),
    "a plain clip": ("{y = Clip(x, zero, one)}", "Clip"),
    "hard swish of HardSigmoid": (
        "{a = HardSigmoid<alpha = 0.16666667>(x) y = Mul(x, a)}",
        "HardSwish",
    ),
    "another HardSigmoid": ("{a = HardSigmoid(x) y = Mul(x, a)}", "HardSigmoid Mul"),
    "hard swish, product first": (
        "{a = Add(x, three) b = Clip(a, zero, six) d = Mul(x, b) y = Div(d, six)}",
        "HardSwish",
    ),
    "hard swish, quotient first": (
        "{a = Add(x, three) b = Clip(a, zero, six) d = Div(b, six) y = Mul(d, x)}",
        "HardSwish",
    ),
    "hard swish of Relu6": (
        "{a = Add(x, three) r = Relu(a) b = Min(r, six) d = Mul(b, sixth) y = Mul(d, x)}",
        "HardSwish",
    ),
    "mish": ("{a = Softplus(x) t = Tanh(a) y = Mul(x, t)}", "Mish"),
    "mish, softplus written out": (
        "{e = Exp(x) a = Add(e, one) s = Log(a) t = Tanh(s) y = Mul(t, x)}",
        "Mish",
    ),
}

NORMS: dict[str, tuple[str, str]] = {
    "layer norm, torch.jit": (
        """{m = ReduceMean(x, last) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, last)
        e = Add(v, eps) s = Sqrt(e) n = Div(d, s) a = Mul(n, G) y = Add(a, B)}""",
        "LayerNormalization",
    ),
    "layer norm, square by product": (
        """{m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)
        e = Add(eps, v) s = Sqrt(e) r = Reciprocal(s) n = Mul(r, d) a = Mul(G, n) y = Add(B, a)}""",
        "LayerNormalization",
    ),
    "layer norm, difference twice": (
        """{m = ReduceMean(x, last) d = Sub(x, m) f = Sub(x, m) q = Pow(f, two)
        v = ReduceMean(q, last) e = Add(v, eps) s = Sqrt(e) y = Div(d, s)}""",
        "LayerNormalization",
    ),
    "layer norm over two axes": (
        """{m = ReduceMean(x, both) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, both)
        e = Add(v, eps) s = Sqrt(e) n = Div(d, s) a = Mul(n, G2) y = Add(a, B2)}""",
        "LayerNormalization",
    ),
    "layer norm, Keras": (
        """{m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)
        e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s) g = Mul(r, G) p = Mul(x, g) o = Mul(m, g)
        z = Sub(B, o) y = Add(p, z)}""",
        "LayerNormalization",
    ),
    "mean over a middle axis": (
        """{m = ReduceMean(x, middle) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, middle)
        e = Add(v, eps) s = Sqrt(e) y = Div(d, s)}""",
        "ReduceMean Sub Mul ReduceMean Add Sqrt Div",
    ),
    "a scale per row": (
        """{m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)
        e = Add(v, eps) s = Sqrt(e) n = Div(d, s) y = Mul(n, G2)}""",
        "LayerNormalization Mul",
    ),
    "root mean square": (
        """{q = Pow(x, two) m = ReduceMean(q, last) e = Add(m, eps) s = Sqrt(e)
        r = Reciprocal(s) n = Mul(x, r) y = Mul(G, n)}""",
        "RMSNormalization",
    ),
    "root mean square, torch.jit": (
        """{q = Pow(x, two) m = ReduceMean(q, last) e = Add(m, eps) s = Sqrt(e)
        r = Div(one, s) n = Mul(x, r) y = Mul(n, G)}""",
        "RMSNormalization",
    ),
    "softmax": (
        """{m = ReduceMax(x, last) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, last)
        y = Div(e, s)}""",
        "Softmax",
    ),
    "softmax without maximum": ("{e = Exp(x) s = ReduceSum(e, middle) y = Div(e, s)}", "Softmax"),
    "softmax over two axes": (
        "{e = Exp(x) s = ReduceSum(e, both) y = Div(e, s)}",
        "Exp ReduceSum Div",
    ),
    "log softmax": (
        """{m = ReduceMax(x, last) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, last) p = Div(e, s)
        y = Log(p)}""",
        "LogSoftmax",
    ),
}
NORM = """(float[2,3,4] x, float[4] G, float[4] B, float[3,4] G2, float[3,4] B2)
    => (float[2,3,4] y) <int64[1] last = {-1}, int64[2] both = {1, 2}, int64[1] middle = {1},
    float two = {2}, float one = {1}, float[1] eps = {0.001}>"""

QKV = "float[2,3,5,4] q, float[2,3,6,4] k, float[2,3,6,7] v"
ATTENTION = f"""({QKV}, float[2,1,1,6] m, float[5,1] column, bool[1,1,5,6] seen,
    float[2,3,5,7] K57)
    => (float[2,3,5,7] y) <float d = {{2}}, float s = {{0.5}}, float r = {{0.70710678}},
    float low = {{-3.4028235e38}}, float zero = {{0}}, float little = {{-10000}},
    int64[3] kq = {{6, 6, 4}}, int64[4] kt = {{2, 3, 4, 6}}>"""

ATTENTIONS: dict[str, tuple[str, str]] = {
    "divided scores": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) a = Div(p, d)
        w = Softmax<axis = -1>(a) y = MatMul(w, v)}""",
        "Attention",
    ),
    "scaled queries and a mask": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) qs = Mul(q, s) p = MatMul(qs, t) a = Add(m, p)
        w = Softmax<axis = 3>(a) y = MatMul(w, v)}""",
        "Attention",
    ),
    "torch.export": (
        """{f = Reshape(k, kq) g = Transpose<perm = [0, 2, 1]>(f) t = Reshape(g, kt)
        qs = Mul(q, r) ts = Mul(t, r) p = MatMul(qs, ts) w = Softmax<axis = -1>(p)
        y = MatMul(w, v)}""",
        "Attention",
    ),
    "rows without keys guarded": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) a = Add(p, m)
        w = Softmax<axis = -1>(a) n = IsNaN(w) g = Where(n, zero, w) y = MatMul(g, v)}""",
        "Attention",
    ),
    "replaced scores": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) a = Mul(p, s)
        b = Where(seen, a, low) w = Softmax<axis = -1>(b) y = MatMul(w, v)}""",
        "Where Attention",
    ),
    "scores replaced by not very much": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) b = Where(seen, p, little)
        w = Softmax<axis = -1>(b) y = MatMul(w, v)}""",
        "Transpose MatMul Where Softmax MatMul",
    ),
    "a mask without the keys' axis": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) a = Add(p, column)
        w = Softmax<axis = -1>(a) y = MatMul(w, v)}""",
        "Transpose MatMul Add Softmax MatMul",
    ),
    "softmax over queries": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) w = Softmax<axis = 2>(p)
        y = MatMul(w, v)}""",
        "Transpose MatMul Softmax MatMul",
    ),
    "weights times themselves": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(q) p = MatMul(q, t) w = Softmax<axis = -1>(p)
        z = MatMul(w, w) y = MatMul(z, K57)}""",
        "Transpose MatMul Softmax MatMul MatMul",
    ),
    "weights that are read": (
        """{t = Transpose<perm = [0, 1, 3, 2]>(k) p = MatMul(q, t) w = Softmax<axis = -1>(p)
        z = MatMul(w, v) o = ReduceMax(w) y = Add(z, o)}""",
        "Transpose MatMul Softmax MatMul ReduceMax Add",
    ),
}

FORMULAS = {
    **{name: (ACTIVATION + text, left) for name, (text, left) in ACTIVATIONS.items()},
    **{name: (NORM + text, left) for name, (text, left) in NORMS.items()},
    **{name: (ATTENTION + text, left) for name, (text, left) in ATTENTIONS.items()},
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_becomes_its_operator(name: str) -> None:
    text, left = FORMULAS[name]
    before = graph_of(text)
    after = run_passes(before)
    assert " ".join(kinds(after)) == left
    assert after.outputs == before.outputs
    feeds = random_feeds(before.inputs)
    assert_close(evaluate(after, np, feeds), evaluate(before, np, feeds))


PARAMETERS: dict[str, Any] = {
    "gelu, torch.jit": Gelu(),
    "gelu with tanh, torch.jit": Gelu("tanh"),
    "silu of a scaled input": Swish(3.0),
    "layer norm over two axes": LayerNormalization(axis=-2, epsilon=np.float32(0.001)),
    "root mean square": RMSNormalization(axis=-1, epsilon=np.float32(0.001)),
    "softmax without maximum": Softmax(1),
    "log softmax": LogSoftmax(-1),
    "divided scores": Attention(scale=0.5),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_formula_decides_attributes(name: str) -> None:
    (node,) = run_passes(graph_of(FORMULAS[name][0])).nodes
    assert node.op == PARAMETERS[name]


def test_hard_sigmoid_has_slope_and_offset_of_the_clip() -> None:
    (node,) = run_passes(graph_of(FORMULAS["hard sigmoid, clip to six"][0])).nodes
    assert isinstance(node.op, HardSigmoid)
    assert (node.op.alpha, node.op.beta) == pytest.approx((1 / 6, 0.5))


def test_numbers_of_half_precision_are_rounded() -> None:
    graph = graph_of(
        """(float16[4] x) => (float16[4] y)
        <float r = {1.4142135}, float one = {1}, float half = {0.5}>
        {rh = Cast<to = 10>(r) oneh = Cast<to = 10>(one) halfh = Cast<to = 10>(half)
         a = Div(x, rh) b = Erf(a) c = Add(b, oneh) d = Mul(x, c) y = Mul(d, halfh)}"""
    )
    assert kinds(run_passes(graph)) == ["Gelu"]


def test_numbers_that_add_axes_are_no_activation() -> None:
    graph = graph_of(
        """(float[4] x) => (float[1,4] y) <float[1,1] one = {1}, float half = {0.5}>
        {a = Mul(x, half) s = Sigmoid(x) b = Mul(s, one) y = Mul(x, b)}"""
    )
    assert kinds(run_passes(graph)) == ["Sigmoid", "Mul", "Mul"]


def random_feeds(inputs: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    feeds = {}
    for name, declared in inputs.items():
        assert isinstance(declared, TensorType)
        content = rng.standard_normal(declared.shape)
        is_bool = declared.dtype == np.bool_
        feeds[name] = content > 0 if is_bool else content.astype(declared.dtype)
    return feeds
