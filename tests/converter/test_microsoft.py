"""com.microsoft's operators against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

from mnnpy import Session, errors
from tests.converter.onnxruntime_cases import Array, Case, check_case

_rng = np.random.default_rng(0)


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return np.asarray(_rng.standard_normal(shape), dtype=dtype)


def whole(low: int, high: int, *shape: int, dtype: Any = np.int32) -> Array:
    return _rng.integers(low, high, shape).astype(dtype)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.asarray(value, dtype)


def u8(*shape: int) -> Array:
    return whole(0, 256, *shape, dtype=np.uint8)


def s8(*shape: int) -> Array:
    return whole(-128, 128, *shape, dtype=np.int8)


def scale_and_zero(scale: float, zero: int, dtype: Any = np.uint8) -> tuple[Array, Array]:
    return scalar(scale), scalar(zero, dtype)


IMAGE, KERNEL, BIAS = floats(2, 4, 7, 6), floats(6, 2, 3, 3), floats(6)
ROWS = floats(2, 5, 8)
MASK_LENGTHS = np.asarray([3, 5], np.int32)
MASK_ROWS = np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
CONV = {"pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2}
PAST = floats(2, 2, 2, 3, 4)

FUSED = {
    "FusedConv": Case("FusedConv", (IMAGE, KERNEL, BIAS), {**CONV, "activation": "Relu"}),
    "FusedConv without bias": Case("FusedConv", (IMAGE, KERNEL), {**CONV, "activation": "Tanh"}),
    "FusedConv with sum": Case(
        "FusedConv", (IMAGE, KERNEL, BIAS, floats(2, 6, 4, 6)), {**CONV, "activation": "Relu"}
    ),
    "FusedConv, LeakyRelu": Case(
        "FusedConv",
        (IMAGE, KERNEL, BIAS),
        {"group": 2, "activation": "LeakyRelu", "activation_params": [0.3]},
    ),
    "FusedConv, Clip": Case(
        "FusedConv",
        (IMAGE, KERNEL, BIAS),
        {"group": 2, "activation": "Clip", "activation_params": [-0.5, 0.75]},
    ),
    "FusedConv, HardSigmoid": Case(
        "FusedConv",
        (IMAGE, KERNEL, BIAS),
        {"group": 2, "activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
    ),
    "FusedGemm": Case(
        "FusedGemm",
        (floats(4, 3), floats(5, 4), floats(5)),
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0, "activation": "Relu"},
    ),
    "FusedGemm, LeakyRelu": Case(
        "FusedGemm",
        (floats(3, 4), floats(4, 5), floats(5)),
        {"activation": "LeakyRelu", "activation_alpha": 0.2},
    ),
    "FusedMatMul": Case("FusedMatMul", (floats(2, 3, 4), floats(4, 5)), {"alpha": 0.25}),
    "FusedMatMul, float64": Case(
        "FusedMatMul",
        (floats(2, 4, 3, dtype=np.float64), floats(2, 5, 4, dtype=np.float64)),
        {"transA": 1, "transB": 1, "alpha": 3.0},
    ),
    "FusedMatMul, transBatch": Case(
        "FusedMatMul",
        (floats(5, 2, 3), floats(4, 2, 5)),
        {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1},
    ),
    "TransposeMatMul": Case("TransposeMatMul", (floats(3, 4), floats(5, 4)), {"transB": 1}),
    "Gelu": Case("Gelu", (ROWS,)),
    "BiasGelu": Case("BiasGelu", (ROWS, floats(8))),
    "FastGelu": Case("FastGelu", (ROWS,)),
    "FastGelu with bias": Case("FastGelu", (ROWS, floats(8))),
    "QuickGelu": Case("QuickGelu", (ROWS,), {"alpha": 1.5}),
    "QuickGelu, default": Case("QuickGelu", (ROWS,)),
    "SkipLayerNormalization": Case(
        "SkipLayerNormalization", (ROWS, floats(2, 5, 8), floats(8), floats(8)), {"epsilon": 1e-5}
    ),
    "SkipLayerNormalization, all": Case(
        "SkipLayerNormalization",
        (ROWS, floats(2, 5, 8), floats(8), None, floats(8)),
        outputs=("y", "", "", "sum"),
    ),
    "SkipSimplifiedLayerNormalization": Case(
        "SkipSimplifiedLayerNormalization",
        (ROWS, floats(2, 5, 8), floats(8), floats(8)),
        outputs=("y", "", "", "sum"),
    ),
    "SimplifiedLayerNormalization": Case(
        "SimplifiedLayerNormalization", (ROWS, floats(8)), {"epsilon": 1e-4}, domain=""
    ),
    "SimplifiedLayerNormalization, axis": Case(
        "SimplifiedLayerNormalization", (ROWS, floats(5, 8)), {"axis": 1}, ("y", "i"), domain=""
    ),
    "EmbedLayerNormalization": Case(
        "EmbedLayerNormalization",
        (
            *(whole(0, 9, 2, 5), whole(0, 2, 2, 5), floats(9, 8), floats(7, 8), floats(2, 8)),
            *(floats(8), floats(8), MASK_ROWS),
        ),
        outputs=("y", "mask", "sum"),
    ),
    "EmbedLayerNormalization, positions": Case(
        "EmbedLayerNormalization",
        (
            *(whole(0, 9, 2, 5), None, floats(9, 8), floats(7, 8), None),
            *(floats(8), floats(8), None, whole(0, 7, 2, 5)),
        ),
        outputs=("y", "mask"),
    ),
    "Inverse": Case("Inverse", (floats(2, 3, 3) + 3 * np.eye(3, dtype=np.float32),), atol=1e-4),
    "Trilu": Case("Trilu", (floats(2, 3, 4), scalar(1, np.int64)), {"upper": 0}),
    "CDist": Case("CDist", (floats(4, 3), floats(5, 3)), {"metric": "euclidean"}, atol=1e-4),
    "CDist, squares": Case("CDist", (floats(4, 3), floats(5, 3)), {"metric": "sqeuclidean"}),
    "NhwcMaxPool": Case(
        "NhwcMaxPool",
        (u8(1, 7, 6, 4),),
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "strides": [2, 1]},
    ),
}

HEADS = {"num_heads": 2}
PROJECTION = (floats(8, 24), floats(24))
MHA = (floats(2, 5, 8), floats(2, 6, 8), floats(2, 6, 12))
RAW = np.asarray([[1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 1, 1]], np.int32)

ATTENTION = {
    "Attention": Case("Attention", (ROWS, *PROJECTION), HEADS),
    "Attention, causal": Case("Attention", (ROWS, *PROJECTION), {**HEADS, "unidirectional": 1}),
    "Attention, lengths": Case("Attention", (ROWS, *PROJECTION, MASK_LENGTHS), HEADS),
    "Attention, mask": Case("Attention", (ROWS, *PROJECTION, MASK_ROWS), HEADS),
    "Attention, mask per query": Case(
        "Attention", (ROWS, *PROJECTION, whole(0, 2, 2, 5, 5)), {**HEADS, "scale": 0.3}
    ),
    "Attention, sizes": Case(
        "Attention",
        (ROWS, floats(8, 28), floats(28)),
        {**HEADS, "qkv_hidden_sizes": [8, 8, 12], "mask_filter_value": -5.0},
    ),
    "Attention, past": Case(
        "Attention",
        (ROWS, *PROJECTION, None, PAST),
        {**HEADS, "unidirectional": 1},
        outputs=("y", "present"),
    ),
    "Attention, bias": Case(
        "Attention", (ROWS, *PROJECTION, MASK_ROWS, None, floats(2, 2, 5, 5)), HEADS
    ),
    "QAttention": Case(
        "QAttention",
        (
            *(u8(2, 5, 8), s8(8, 24), floats(24), scalar(0.02), scalar(0.01), MASK_LENGTHS),
            *(scalar(120, np.uint8), scalar(3, np.int8)),
        ),
        HEADS,
    ),
    "MultiHeadAttention": Case("MultiHeadAttention", MHA, HEADS),
    "MultiHeadAttention, bias and mask": Case(
        "MultiHeadAttention", (*MHA, floats(28), RAW), {**HEADS, "scale": 0.4}
    ),
    "MultiHeadAttention, lengths": Case(
        "MultiHeadAttention", (*MHA, None, np.asarray([4, 6], np.int32)), HEADS
    ),
    "MultiHeadAttention, scores added": Case(
        "MultiHeadAttention", (*MHA, None, None, floats(1, 2, 5, 6)), HEADS
    ),
    "MultiHeadAttention, past": Case(
        "MultiHeadAttention",
        (
            *(floats(2, 1, 8), floats(2, 1, 8), floats(2, 1, 8), floats(24), None, None),
            *(floats(2, 2, 3, 4), floats(2, 2, 3, 4)),
        ),
        HEADS,
        ("y", "key", "value"),
    ),
    "MultiHeadAttention, heads of keys": Case(
        "MultiHeadAttention", (floats(2, 5, 8), floats(2, 2, 6, 4), floats(2, 2, 6, 4)), HEADS
    ),
    "MultiHeadAttention, causal": Case(
        "MultiHeadAttention", (MHA[0], MHA[0], MHA[0]), {**HEADS, "unidirectional": 1}
    ),
    "RotaryEmbedding": Case(
        "RotaryEmbedding", (floats(2, 5, 8), whole(0, 9, 2, 5, dtype=np.int64), *floats(2, 9, 2))
    ),
    "RotaryEmbedding, offset": Case(
        "RotaryEmbedding",
        (floats(2, 2, 5, 4), np.asarray([3], np.int64), *floats(2, 9, 2)),
        {"interleaved": 1},
    ),
    "RotaryEmbedding, part": Case(
        "RotaryEmbedding",
        (floats(2, 5, 16), whole(0, 9, 2, 5, dtype=np.int64), *floats(2, 9, 2)),
        {"num_heads": 2, "rotary_embedding_dim": 4},
    ),
}


def grouped(
    queries: int, past: int, lengths: list[int], total: int, rotary: bool = False, **more: Any
) -> Case:
    """GroupQueryAttention of 4 heads of queries and 2 of keys, 16 features each."""
    caches = floats(2, 2, 2, past, 16) if past else (None, None)
    for sequence, length in enumerate(lengths if past else ()):
        for cache in caches:
            cache[sequence, :, length - queries :] = 0  # ONNX Runtime clears what is not valid.
    tables = floats(2, 16, 8) if rotary else (None, None)
    inputs = (
        *(floats(2, queries, 64), *floats(2, 2, queries, 32), *caches),
        *(np.asarray(lengths, np.int32) - 1, scalar(total, np.int32), *tables),
    )
    attributes = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": int(rotary), **more}
    outputs = ("y", "key", "value")
    return Case("GroupQueryAttention", inputs, attributes, outputs)


GROUPED = {
    "prompt": grouped(5, 0, [5, 5], 5),
    "prompt, rotated": grouped(5, 0, [5, 5], 5, rotary=True),
    "prompt, interleaved": grouped(5, 0, [5, 5], 5, rotary=True, rotary_interleaved=1),
    "prompt, window": grouped(5, 0, [5, 5], 5, local_window_size=2),
    "prompt, softcap": grouped(5, 0, [5, 5], 5, softcap=0.7, scale=0.5),
    "one more": grouped(1, 4, [5, 5], 5, rotary=True),
    "one more, own lengths": grouped(1, 4, [3, 5], 5, rotary=True),
    "one more, room left": grouped(1, 9, [4, 5], 5, rotary=True),
    "packed": Case(
        "GroupQueryAttention",
        (
            *(floats(2, 5, 64), None, None, None, None),
            *(np.asarray([4, 4], np.int32), scalar(5, np.int32)),
        ),
        {"num_heads": 4, "kv_num_heads": 2},
        ("y", "key", "value"),
    ),
}

X = (u8(2, 3, 4, 5), *scale_and_zero(0.02, 120))
Y = scale_and_zero(0.03, 100)
SIGNED = (s8(2, 3, 4, 5), *scale_and_zero(0.02, -5, np.int8))
LAST = (u8(1, 5, 6, 8), *scale_and_zero(0.02, 120))
POOL = {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}
GEMM = (u8(3, 8), *scale_and_zero(0.02, 120), s8(8, 5), *scale_and_zero(0.01, 0, np.int8))
LSTM_WEIGHTS = (s8(1, 3, 16), s8(1, 4, 16))

QUANTIZED = {
    "QuantizeLinear": Case("QuantizeLinear", (floats(3, 4), *scale_and_zero(0.02, 120)), steps=1),
    "QuantizeLinear, 16 bits": Case(
        "QuantizeLinear",
        (floats(3, 4), floats(4) ** 2 + 0.01, whole(0, 9, 4, dtype=np.uint16)),
        {"axis": 1},
        steps=1,
    ),
    "DequantizeLinear": Case("DequantizeLinear", X),
    "DequantizeLinear, 16 bits": Case(
        "DequantizeLinear", (whole(0, 9999, 3, 4, dtype=np.int16), floats(3)), {"axis": 0}
    ),
    "QLinearAdd": Case("QLinearAdd", (*X, u8(4, 5), *scale_and_zero(0.01, 3), *Y), steps=1),
    "QLinearAdd, signed": Case("QLinearAdd", (*SIGNED, *SIGNED, *SIGNED[1:]), steps=1),
    "QLinearMul": Case("QLinearMul", (*X, u8(4, 5), *scale_and_zero(0.01, 3), *Y), steps=1),
    "QLinearConcat": Case(
        "QLinearConcat",
        (*Y, *X, u8(2, 2, 4, 5), *scale_and_zero(0.01, 3)),
        {"axis": 1},
        steps=1,
        constants=(0, 1, 3, 4, 6, 7),
    ),
    "QLinearWhere": Case(
        "QLinearWhere",
        (whole(0, 2, 4, 5, dtype=np.bool_), *X, u8(4, 5), *scale_and_zero(0.01, 3), *Y),
        steps=1,
        constants=(2, 3, 5, 6, 7, 8),
    ),
    "QLinearSigmoid": Case("QLinearSigmoid", (*X, *scale_and_zero(1 / 256, 0)), steps=1),
    "QLinearLeakyRelu": Case("QLinearLeakyRelu", (*X, *Y), {"alpha": 0.2}, steps=1),
    "QLinearSoftmax": Case(
        "QLinearSoftmax",
        (*X, *scale_and_zero(1 / 256, 0)),
        {"axis": -1, "opset": 13},
        steps=1,
        constants=(1, 2, 3, 4),
    ),
    "QLinearSoftmax, old": Case(
        "QLinearSoftmax",
        (*X, *scale_and_zero(1 / 256, 0)),
        {"axis": 2, "opset": 11},
        steps=1,
        constants=(1, 2, 3, 4),
    ),
    "QLinearGlobalAveragePool": Case("QLinearGlobalAveragePool", (*X, *Y), steps=1),
    "QLinearGlobalAveragePool, channels last": Case(
        "QLinearGlobalAveragePool", (*LAST, *Y), {"channels_last": 1}, steps=1
    ),
    "QLinearAveragePool": Case("QLinearAveragePool", (*X, *Y), POOL, steps=1),
    "QLinearAveragePool, channels last": Case(
        "QLinearAveragePool",
        (*LAST, *Y),
        {**POOL, "channels_last": 1, "count_include_pad": 1},
        steps=1,
    ),
    "QLinearConv": Case(
        "QLinearConv",
        (*LAST, s8(3, 8, 3, 3), *scale_and_zero(0.01, 0, np.int8), *scale_and_zero(0.2, 100)),
        {"channels_last": 1, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        constants=(1, 2, 3, 4, 5, 6, 7),
        steps=1,
    ),
    "QGemm": Case("QGemm", (*GEMM, whole(-999, 999, 5), *scale_and_zero(0.1, 90)), steps=1),
    "QGemm to float": Case("QGemm", (*GEMM, whole(-999, 999, 5)), {"alpha": 0.5}),
    "QGemm, transposed": Case(
        "QGemm",
        (*GEMM[:3], s8(5, 8), floats(5) ** 2, np.zeros(5, np.int8)),
        {"transB": 1},
    ),
    "MatMulIntegerToFloat": Case(
        "MatMulIntegerToFloat",
        (
            *(u8(2, 3, 8), s8(8, 5), scalar(0.02), floats(5) ** 2, scalar(120, np.uint8)),
            *(whole(-3, 3, 5, dtype=np.int8), floats(5)),
        ),
    ),
    "DynamicQuantizeMatMul": Case(
        "DynamicQuantizeMatMul",
        (floats(2, 3, 8), s8(8, 5), scalar(0.02), scalar(3, np.int8), floats(5)),
        atol=1e-4,
    ),
    "DynamicQuantizeMatMul, per column": Case(
        "DynamicQuantizeMatMul", (floats(3, 8), s8(8, 5), floats(5) ** 2), atol=1e-4
    ),
    # ONNX Runtime quantises x and h too, to 8 bits.
    "DynamicQuantizeLSTM": Case(
        "DynamicQuantizeLSTM",
        (
            *(floats(4, 2, 3), *LSTM_WEIGHTS, floats(1, 32), None, None, None, None),
            *(np.asarray([0.01], np.float32), np.zeros(1, np.int8)) * 2,
        ),
        {"hidden_size": 4},
        ("y", "h", "c"),
        atol=3e-2,
        constants=(1, 2, 8, 9, 10, 11),
    ),
}


def few_bits(bits: int, block: int, zeros: Any, k: int = 40, **more: Any) -> Case:
    """MatMulNBits of k features to 6, with zero points of that type, or none."""
    n, blocks = 6, -(-k // block)
    width = -(-blocks * bits // 8)
    points = {None: None, np.uint8: u8(n, width), np.float32: floats(n, blocks)}[zeros]
    return Case(
        "MatMulNBits",
        (floats(3, k), u8(n, blocks, block * bits // 8), floats(n, blocks), points),
        {"K": k, "N": n, "bits": bits, "block_size": block, **more},
        constants=(1, 2, 3),
        atol=1e-3,
    )


FEW_BITS = {
    "4 bits": few_bits(4, 16, None),
    "4 bits, zero points": few_bits(4, 16, np.uint8),
    "4 bits, float zero points": few_bits(4, 16, np.float32),
    "4 bits, one block": few_bits(4, 64, np.uint8),
    "8 bits": few_bits(8, 32, np.uint8, k=64),
}

CASES = {
    **FUSED,
    **ATTENTION,
    **{f"GroupQueryAttention, {name}": case for name, case in GROUPED.items()},
    **QUANTIZED,
    **{f"MatMulNBits, {name}": case for name, case in FEW_BITS.items()},
}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_against_onnxruntime(name: str, backend: str) -> None:
    check_case(CASES[name], backend)


@pytest.mark.parametrize("parts", [2, 3])
def test_packed_projections(parts: int) -> None:
    """Keys and values in one tensor, or queries too, which ONNX Runtime's CPU kernel refuses."""
    q, *pair = projections = floats(3, 2, 5, 8)
    heads = [x.reshape(2, 5, 2, 1, 4) for x in projections[-parts:]]
    packed = np.concatenate(heads, axis=3)
    inputs = (packed,) if parts == 3 else (q, packed)
    results = []
    for given in (inputs, (q, *pair)):
        case = Case("MultiHeadAttention", given, HEADS)
        results.append(Session(case.model, backend="numpy").run(case.feeds)["y"])
    np.testing.assert_array_equal(*results)


def run(op: str, *inputs: Array, **attributes: Any) -> Array:
    case = Case(op, inputs, attributes)
    found: Array = Session(case.model, backend="numpy").run(case.feeds)["y"]
    return found


def last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("op", ["NhwcConv", "NhwcFusedConv"])
def test_convolution_with_channels_last(op: str) -> None:
    """ONNX Runtime has it for GPUs and float16 only, as it has BiasAdd and BiasSplitGelu."""
    given = {"pads": [1, 0, 1, 2], "group": 2, "activation": "Relu"}
    wanted = run("FusedConv", IMAGE, KERNEL, BIAS, **given)
    found = run(op, last(IMAGE), last(KERNEL), BIAS, **given)
    np.testing.assert_allclose(found, last(wanted), rtol=1e-5, atol=1e-5)


def test_biases() -> None:
    bias, skip = floats(8), floats(2, 5, 8)
    np.testing.assert_allclose(run("BiasAdd", ROWS, bias, skip), ROWS + bias + skip, rtol=1e-6)
    left, right = np.split(ROWS + bias, 2, axis=-1)
    found = run("BiasSplitGelu", ROWS, bias)
    np.testing.assert_allclose(found, left * run("Gelu", right), rtol=1e-5, atol=1e-6)


def test_types_are_seen_in_a_branch() -> None:
    """What a branch reads from around it has a rank, by which its matrices are transposed."""
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (bool c, float[2, 3, 4] a, float[2, 3, 5] b) => (y) {
            n = Neg (a)
            y = If (c) <
                then_branch = t () => (p) { p = com.microsoft.FusedMatMul <transA = 1> (n, b) },
                else_branch = e () => (q) { q = Identity (b) }>
        }"""
    feeds = {"c": np.array(True), "a": floats(2, 3, 4), "b": floats(2, 3, 5)}
    found = Session(onnx.parser.parse_model(text).SerializeToString(), "numpy").run(feeds)["y"]
    wanted = -feeds["a"].swapaxes(1, 2) @ feeds["b"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


REFUSED = {
    'FusedConv <activation = "Swoosh"> (x, w)': "activation 'Swoosh' is none of Clip, Relu",
    "FusedMatMul <transA = 1> (w, w)": r"depends on the shape of input 0 \('w'\)",
    "MatMulNBits <K = 4, N = 4, block_size = 4> (x, x, x)": "constant weights",
    "MultiHeadAttention <num_heads = 2> (x, x, x, , , , , , w)": "input 8 is not supported",
    "GroupQueryAttention <num_heads = 2, kv_num_heads = 2, smooth_softmax = 1> (x, x, x)": (
        "smooth_softmax is not supported"
    ),
    "GroupQueryAttention <num_heads = 2, kv_num_heads = 2, causal = 0> (x, x, x)": (
        "causal must be 1"
    ),
}


@pytest.mark.parametrize("call", REFUSED)
def test_refused(call: str) -> None:
    """``w`` has no shape."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[2, 3, 4] x, float[2] w) => (y) {{ y = com.microsoft.{call} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.input[1].type.tensor_type.ClearField("shape")
    with pytest.raises(errors.UnsupportedOperatorError, match=REFUSED[call]):
        Session(model.SerializeToString())
