"""What ONNX Runtime's quantiser and optimisers make of small models, run by mnnpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from mnnpy import Session
from tests.converter.onnxruntime_cases import Array, run_onnxruntime

quantization = pytest.importorskip(
    "onnxruntime.quantization", reason="onnxruntime is in the extra 'dev'"
)
ort = pytest.importorskip("onnxruntime")

NETWORK = """
(float[2, 3, 10, 10] x) => (float[2, 5] y) {
    c1 = Conv <kernel_shape=[3, 3], pads=[1, 1, 1, 1]> (x, W1, B1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=4> (r1, W2, B2)
    s = Sigmoid (c2)
    m = Mul (c2, s)
    a = Add (m, r1)
    l = LeakyRelu <alpha=0.1> (a)
    k = Concat <axis=1> (l, r1)
    p = AveragePool <kernel_shape=[2, 2], strides=[2, 2]> (k)
    g = GlobalAveragePool (p)
    f = Flatten (g)
    z = Gemm (f, W3, B3)
    y = Softmax (z)
}"""
LAYER = """
(float[2, 6, 8] x) => (float[2, 6, 8] y) {
    mq = MatMul (x, Wq)
    q = Add (mq, Bq)
    mk = MatMul (x, Wk)
    k = Add (mk, Bk)
    mv = MatMul (x, Wv)
    v = Add (mv, Bv)
    qr = Reshape (q, heads)
    kr = Reshape (k, heads)
    vr = Reshape (v, heads)
    qt = Transpose <perm=[0, 2, 1, 3]> (qr)
    kt = Transpose <perm=[0, 2, 3, 1]> (kr)
    vt = Transpose <perm=[0, 2, 1, 3]> (vr)
    qk = MatMul (qt, kt)
    scaled = Div (qk, two)
    p = Softmax (scaled)
    o = MatMul (p, vt)
    ot = Transpose <perm=[0, 2, 1, 3]> (o)
    or = Reshape (ot, flat)
    mo = MatMul (or, Wo)
    bo = Add (mo, Bo)
    s1 = Add (bo, x)
    n1 = LayerNormalization <epsilon=1e-5> (s1, G1, H1)
    f1 = MatMul (n1, W1)
    b1 = Add (f1, B1)
    e1 = Div (b1, root)
    e2 = Erf (e1)
    e3 = Add (e2, one)
    e4 = Mul (b1, e3)
    e5 = Mul (e4, half)
    f2 = MatMul (e5, W2)
    b2 = Add (f2, B2)
    s2 = Add (b2, n1)
    y = LayerNormalization <epsilon=1e-5> (s2, G2, H2)
}"""
NETWORK_WEIGHTS = {
    "W1": (8, 3, 3, 3), "B1": (8,), "W2": (8, 2, 3, 3), "B2": (8,), "W3": (16, 5), "B3": (5,),
}  # fmt: skip
LAYER_WEIGHTS = {
    **{f"W{name}": (8, 8) for name in "qkvo"},
    **{f"B{name}": (8,) for name in "qkvo2"},
    **dict.fromkeys(("G1", "H1", "G2", "H2"), (8,)),
    "W1": (8, 16), "B1": (16,), "W2": (16, 8),
}  # fmt: skip
LAYER_CONSTANTS = {
    "heads": np.array([0, 0, 2, 4]), "flat": np.array([0, 0, 8]), "two": np.float32(2),
    "root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5),
}  # fmt: skip


def write_model(
    path: Path, text: str, weights: dict[str, tuple[int, ...]], constants: dict[str, Any]
) -> Path:
    rng = np.random.default_rng(0)
    graph = onnx.parser.parse_graph("g " + text)
    arrays = {n: rng.standard_normal(s).astype(np.float32) * 0.4 for n, s in weights.items()}
    for name, array in {**arrays, **constants}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def network(folder: Path) -> Path:
    return write_model(folder / "network.onnx", NETWORK, NETWORK_WEIGHTS, {})


def layer(folder: Path) -> Path:
    return write_model(folder / "layer.onnx", LAYER, LAYER_WEIGHTS, LAYER_CONSTANTS)


def images(count: int) -> Iterator[dict[str, Array]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield {"x": rng.standard_normal((2, 3, 10, 10)).astype(np.float32)}


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._images = images(4)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._images, None)


def static(name: str, **options: Any) -> Callable[[Path, Path], None]:
    def quantize(source: Path, target: Path) -> None:
        form = getattr(quantization.QuantFormat, name)
        quantization.quantize_static(source, target, Calibration(), quant_format=form, **options)

    return quantize


def dynamic(source: Path, target: Path) -> None:
    quantization.quantize_dynamic(source, target)


def session_optimised(source: Path, target: Path) -> None:
    """ONNX Runtime's own optimiser, up to what does not depend on the machine."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def quantized_and_optimised(source: Path, target: Path) -> None:
    middle = target.with_suffix(".qdq")
    static("QDQ", activation_type=quantization.QuantType.QUInt8)(source, middle)
    session_optimised(middle, target)


def dynamic_and_optimised(source: Path, target: Path) -> None:
    middle = target.with_suffix(".dynamic")
    dynamic(source, middle)
    session_optimised(middle, target)


def transformer_optimised(source: Path, target: Path) -> None:
    pytest.importorskip("sympy", reason="ONNX Runtime's transformer optimiser needs sympy")
    from onnxruntime.transformers.optimizer import optimize_model

    model = optimize_model(str(source), "bert", num_heads=2, hidden_size=8, opt_level=0)
    model.save_model_to_file(str(target))


def few_bits(source: Path, target: Path) -> None:
    pytest.importorskip("onnx_ir", reason="ONNX Runtime's quantiser to few bits needs onnx_ir")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


MADE = {
    "static QDQ": (network, static("QDQ"), {"QuantizeLinear"}, 0.01),
    "static QDQ per channel": (
        network, static("QDQ", per_channel=True, weight_type=quantization.QuantType.QInt8),
        {"QuantizeLinear"}, 0.01,
    ),
    "static QOperator": (
        network, static("QOperator"),
        {"QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu",
         "QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm", "QLinearSoftmax"}, 0.01,
    ),
    "static QDQ, optimised": (
        network, quantized_and_optimised, {"QLinearConv", "QLinearAdd"}, 0.01
    ),
    "optimised": (network, session_optimised, {"FusedConv"}, 1e-5),
    "dynamic": (layer, dynamic, {"MatMulInteger"}, 0.02),
    "dynamic, optimised": (
        layer, dynamic_and_optimised, {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}, 0.02
    ),
    "layer, optimised": (
        layer, session_optimised, {"FusedMatMul", "Gelu", "SkipLayerNormalization"}, 1e-5
    ),
    "layer, transformer optimiser": (
        layer, transformer_optimised, {"Attention", "BiasGelu", "SkipLayerNormalization"}, 1e-5
    ),
    "layer, 4 bits": (layer, few_bits, {"MatMulNBits"}, 1e-4),
}  # fmt: skip
"""Model, tool, operators that it must have used, and the largest error of outputs."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_tool(name: str, tmp_path: Path) -> None:
    write, tool, used, atol = MADE[name]
    target = tmp_path / "made.onnx"
    source = write(tmp_path)
    tool(source, target)
    found = {node.op_type for node in onnx.load(target).graph.node}
    assert used <= found, found
    rng = np.random.default_rng(2)
    shape = (2, 3, 10, 10) if write is network else (2, 6, 8)
    feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
    (wanted,) = run_onnxruntime(str(target), feeds)
    for backend in ("numpy", "numba"):
        (y,) = Session(target, backend=backend).run(feeds).values()
        np.testing.assert_allclose(y, wanted, rtol=0, atol=atol)
