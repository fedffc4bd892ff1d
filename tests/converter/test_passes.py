"""Every pass, before and after: the nodes that are left, and the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mnnpy.converter import passes as pass_files
from mnnpy.converter.passes.absorb_following_affine import absorb_following_affine
from mnnpy.converter.passes.absorb_pads import absorb_pads
from mnnpy.converter.passes.absorb_preceding_affine import absorb_preceding_affine
from mnnpy.converter.passes.absorb_slices import absorb_slices
from mnnpy.converter.passes.eliminate_dead_code import eliminate_dead_code
from mnnpy.converter.passes.evaluate_shapes import evaluate_shapes
from mnnpy.converter.passes.expand_batchnorm import expand_batchnorm
from mnnpy.converter.passes.expand_einsum import expand_einsum
from mnnpy.converter.passes.fold_constants import fold_constants
from mnnpy.converter.passes.form_gemm import form_gemm
from mnnpy.converter.passes.merge_casts import merge_casts
from mnnpy.converter.passes.merge_common_subexpressions import merge_common_subexpressions
from mnnpy.converter.passes.merge_reshapes import merge_reshapes
from mnnpy.converter.passes.merge_transposes import merge_transposes
from mnnpy.converter.passes.remove_identities import remove_identities
from mnnpy.converter.passes.trim_kernels import trim_kernels
from mnnpy.converter.pipeline import PASSES
from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.rewrite import Pass
from mnnpy.runtime.graph.types import TensorType
from tests.converter.models import graph_of, kinds
from tests.runtime.graphs import assert_close


class Case(NamedTuple):
    """A graph and what one pass leaves of its nodes."""

    change: Pass
    text: str
    left: str
    sizes: dict[str, int] = {}


BN = "(c, Pg, B, M, Pv)"
BN_INPUTS = "float[4] Pg, float[4] B, float[4] M, float[4] Pv"
IMAGE = "float[1,4,6,6] x"
BST = {"b": 2, "s": 5, "t": 4}


def einsum(
    equation: str, a: str, b: str, y: str, left: str, sizes: Mapping[str, int] | None = None
) -> Case:
    body = f'{{y = Einsum<equation="{equation}">(a, b)}}'
    text = f"(float[{a}] a, float[{b}] b) => (float[{y}] y) {body}"
    return Case(expand_einsum, text, left, dict(sizes or {}))


CASES: dict[str, Case] = {
    "fold a chain of constants": Case(
        fold_constants,
        """(float[3] x, float[3] A, float[3] B) => (float[3] y)
        {a = Mul(A, B) b = Exp(a) y = Add(x, b)}""",
        "Add",
    ),
    "fold a constant output": Case(
        fold_constants,
        "(float[3] x, float[3] A) => (float[3] y, float[3] z) {y = Exp(A) z = Exp(x)}",
        "Exp",
    ),
    "keep random operators": Case(
        fold_constants,
        """(float[3] x, float[3] A) => (float[3] y)
        {b = RandomUniformLike(A) c = Mul(b, x) y = Sub(c, c)}""",
        "RandomUniformLike Mul Sub",
    ),
    "keep quantised weights": Case(
        fold_constants,
        """(float[1,3] x, int8[3,3] W, float Ps) => (float[1,3] y)
        {t = Transpose(W) w = DequantizeLinear(t, Ps) y = MatMul(x, w)}""",
        "DequantizeLinear MatMul",
    ),
    "do not grow by more than 1 MiB": Case(
        fold_constants,
        """(float[1] x, float[1,1] A) => (float[513,512] y) <int64[2] s = {513, 512}>
        {a = Expand(A, s) y = Add(a, x)}""",
        "Expand Add",
    ),
    "grow by 1 MiB": Case(
        fold_constants,
        """(float[1] x, float[1,1] A) => (float[512,512] y) <int64[2] s = {512, 512}>
        {a = Expand(A, s) y = Add(a, x)}""",
        "Add",
    ),
    "a known dimension beside a symbol": Case(
        evaluate_shapes,
        """(float[n,5] x) => (float[n,5] y) <int64 one = {1}>
        {s = Shape(x) d = Gather(s, one) f = Cast<to = 1>(d) y = Div(x, f)}""",
        "Div",
        {"n": 3},
    ),
    "a target of copied dimensions": Case(
        evaluate_shapes,
        """(float[n,s,12] x) => (float[n,s,3,4] y) <int64[2] heads = {3, 4}>
        {d = Shape<end = 2>(x) t = Concat<axis = 0>(d, heads) y = Reshape(x, t)}""",
        "Reshape",
        {"n": 2, "s": 3},
    ),
    "a target with what is left": Case(
        evaluate_shapes,
        """(float[n,4,3] x) => (float[m,3] y) <int64[1] four = {4}, int64[1] three = {3}>
        {n = Shape<end = 1>(x) m = Mul(n, four)
         t = Concat<axis = 0>(m, three) y = Reshape(x, t)}""",
        "Reshape",
        {"n": 2},
    ),
    "no target says two unknown products": Case(
        evaluate_shapes,
        """(float[n,4,m,3] x) => (float[a,b] y) <int64[1] four = {4}, int64[1] three = {3}>
        {n = Shape<end = 1>(x) m = Shape<start = 2, end = 3>(x) a = Mul(n, four) b = Mul(m, three)
         t = Concat<axis = 0>(a, b) y = Reshape(x, t)}""",
        "Shape Shape Mul Mul Concat Reshape",
        {"n": 2, "m": 5},
    ),
    "what is dequantised stays": Case(
        evaluate_shapes,
        """(float[1,3] x, int8[3,3] W, float Ps) => (float[1,3] y)
        {w = DequantizeLinear(W, Ps) t = Transpose(w) y = MatMul(x, t)}""",
        "DequantizeLinear Transpose MatMul",
    ),
    "identities": Case(
        remove_identities,
        """(float[2,3] x) => (float[2,3] y) <int64[2] s = {2, 3}, int64[2] o = {0, 0},
        int64[4] p = {0, 0, 0, 0}, int64[2] e = {9, 9}, float one = {1}, float[1] zero = {0}>
        {a = Identity(x) b = Dropout(a) c = Cast<to = 1>(b) d = Reshape(c, s)
         f = Transpose<perm = [0, 1]>(d) g = Concat<axis = 0>(f) h = Mul(one, g) i = Sub(h, zero)
         j = Slice(i, o, e) k = Pad(j, p) l = Sum(k) m = Expand(l, s) y = Exp(m)}""",
        "Exp",
    ),
    "an output takes over": Case(
        remove_identities, "(float[3] x) => (float[3] y) {a = Exp(x) y = Identity(a)}", "Exp"
    ),
    "two outputs need two values": Case(
        remove_identities,
        "(float[3] x) => (float[3] y, float[3] z) {y = Exp(x) z = Identity(y)}",
        "Exp Identity",
    ),
    "an input is no output": Case(
        remove_identities, "(float[3] x) => (float[3] y) {y = Identity(x)}", "Identity"
    ),
    "zero that broadcasts": Case(
        remove_identities,
        "(float[3] x) => (float[1,3] y) <float[1,1] z = {0}> {y = Add(x, z)}",
        "Add",
    ),
    "a mask that is read": Case(
        remove_identities,
        "(float[3] x) => (float[3] y) {a, m = Dropout(x) b = Cast<to = 1>(m) y = Add(a, b)}",
        "Dropout Cast Add",
    ),
    "a slice that turns round": Case(
        remove_identities,
        """(float[3] x) => (float[3] y) <int64[1] s = {-1}, int64[1] e = {-9}, int64[1] a = {0}>
        {y = Slice(x, s, e, a, s)}""",
        "Slice",
    ),
    "a conversion there and back": Case(
        merge_casts,
        "(float[3] x) => (float[3] y) {a = Cast<to = 11>(x) y = Cast<to = 1>(a)}",
        "Cast",
    ),
    "a conversion that loses": Case(
        merge_casts,
        "(float[3] x) => (float[3] y) {a = Cast<to = 6>(x) y = Cast<to = 1>(a)}",
        "Cast Cast",
    ),
    "common subexpressions": Case(
        merge_common_subexpressions,
        """(float[3] x) => (float[3] y) <float a = {2}, float b = {2}>
        {p = Mul(x, a) q = Mul(x, b) r = Exp(p) s = Exp(q) y = Add(r, s)}""",
        "Mul Exp Add",
    ),
    "random numbers are not common": Case(
        merge_common_subexpressions,
        """(float[3] x) => (float[3] y)
        {a = RandomNormalLike(x) b = RandomNormalLike(x) c = Sub(a, b) y = Sub(c, c)}""",
        "RandomNormalLike RandomNormalLike Sub Sub",
    ),
    "reshapes": Case(
        merge_reshapes,
        """(float[2,3,4] x) => (float[4,6] y) <int64[1] one = {1}, int64[2] s = {4, 6}>
        {a = Flatten(x) b = Unsqueeze(a, one) c = Squeeze(b, one) y = Reshape(c, s)}""",
        "Reshape",
    ),
    "reshapes that cancel": Case(
        merge_reshapes,
        """(float[n,3] x) => (float[n,3] y) <int64[1] one = {1}>
        {a = Unsqueeze(x, one) b = Squeeze(a, one) y = Exp(b)}""",
        "Exp",
        {"n": 2},
    ),
    "reshapes that need two symbols": Case(
        merge_reshapes,
        """(float[n,2,m,2] x) => (float[a,b] y) <int64[4] s = {0, 2, -1, 2}, int64[2] t = {-1, 2}>
        {p = Flatten<axis = 2>(x) y = Reshape(p, t)}""",
        "Reshape",
        {"n": 2, "m": 3},
    ),
    "transposes that cancel": Case(
        merge_transposes,
        """(float[2,3,4] x) => (float[2,3,4] y)
        {a = Transpose<perm = [1, 2, 0]>(x) b = Transpose<perm = [2, 0, 1]>(a) y = Exp(b)}""",
        "Exp",
    ),
    "transposes that merge": Case(
        merge_transposes,
        """(float[2,3,4] x) => (float[3,2,4] y)
        {a = Transpose(x) y = Transpose<perm = [1, 2, 0]>(a)}""",
        "Transpose",
    ),
    "transposes from input to output": Case(
        merge_transposes,
        "(float[2,3] x) => (float[2,3] y) {a = Transpose(x) y = Transpose(a)}",
        "Transpose",
    ),
    "a transpose of joined axes": Case(
        merge_transposes,
        """(float[2,3,4,5] x) => (float[2,3,5,4] y)
        <int64[3] s = {-1, 4, 5}, int64[4] t = {2, 3, 5, 4}>
        {a = Reshape(x, s) b = Transpose<perm = [0, 2, 1]>(a) y = Reshape(b, t)}""",
        "Transpose",
    ),
    "a matrix product with bias": Case(
        form_gemm,
        """(float[n,3] x, float[3,4] W, float[4] B) => (float[n,4] y)
        {a = MatMul(x, W) y = Add(B, a)}""",
        "Gemm",
        {"n": 2},
    ),
    "a matrix product of sequences": Case(
        form_gemm,
        """(float[2,2,3] x, float[3,4] W, float[4] B) => (float[2,2,4] y)
        {a = MatMul(x, W) y = Add(B, a)}""",
        "MatMul Add",
    ),
    "a bias that broadcasts": Case(
        form_gemm,
        """(float[1,3] x, float[3,4] W, float[5,4] B) => (float[5,4] y)
        {a = MatMul(x, W) y = Add(B, a)}""",
        "MatMul Add",
    ),
    "batchnorm behind a grouped convolution": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,2,3,3] W, {BN_INPUTS}) => (float[1,4,4,4] y)
        {{c = Conv<group = 2>(x, W) y = BatchNormalization{BN}}}""",
        "Conv",
    ),
    "batchnorm behind a convolution with bias": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,4,3,3] W, float[4] Bias, {BN_INPUTS}) => (float[1,4,4,4] y)
        {{c = Conv(x, W, Bias) y = BatchNormalization{BN}}}""",
        "Conv",
    ),
    "batchnorm behind a grouped transposed convolution": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,2,3,3] W, {BN_INPUTS}) => (float[1,4,8,8] y)
        {{c = ConvTranspose<group = 2>(x, W) y = BatchNormalization{BN}}}""",
        "ConvTranspose",
    ),
    "batchnorm behind a Gemm": Case(
        absorb_following_affine,
        f"""(float[2,3] x, float[4,3] W, float[4] Bias, {BN_INPUTS}) => (float[2,4] y)
        {{c = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, W, Bias) y = BatchNormalization{BN}}}""",
        "Gemm",
    ),
    "batchnorm behind a matrix product": Case(
        absorb_following_affine,
        f"""(float[2,3] x, float[3,4] W, {BN_INPUTS}) => (float[2,4] y)
        {{c = MatMul(x, W) y = BatchNormalization{BN}}}""",
        "Gemm",
    ),
    "arithmetic behind a convolution": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,4,1,1] W, float[1,4,1,1] A, float[4,1,1] B, float[4,1,1] Pd, float C)
        => (float[1,4,6,6] y)
        {{c = Conv(x, W) a = Mul(c, A) b = Add(B, a) d = Div(b, Pd) y = Sub(C, d)}}""",
        "Conv",
    ),
    "a constant per pixel": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,4,1,1] W, float[6] A) => (float[1,4,6,6] y)
        {{c = Conv(x, W) y = Mul(c, A)}}""",
        "Conv Mul",
    ),
    "a constant that adds channels": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[1,4,1,1] W, float[3,1,1] A) => (float[1,3,6,6] y)
        {{c = Conv(x, W) y = Mul(c, A)}}""",
        "Conv Mul",
    ),
    "a convolution that is read twice": Case(
        absorb_following_affine,
        f"""({IMAGE}, float[4,4,1,1] W, float A) => (float[1,4,6,6] y)
        {{c = Conv(x, W) a = Mul(c, A) y = Add(a, c)}}""",
        "Conv Mul Add",
    ),
    "batchnorm before a convolution without padding": Case(
        absorb_preceding_affine,
        f"""(float[1,4,6,6] c, float[4,2,3,3] W, {BN_INPUTS}) => (float[1,4,4,4] y)
        {{a = BatchNormalization{BN} y = Conv<group = 2>(a, W)}}""",
        "Conv",
    ),
    "a shift before padding": Case(
        absorb_preceding_affine,
        f"""({IMAGE}, float[2,4,3,3] W, float A, float B) => (float[1,2,6,6] y)
        {{a = Add(x, A) b = Mul(a, B) y = Conv<pads = [1, 1, 1, 1]>(b, W)}}""",
        "Add Conv",
    ),
    "arithmetic before a Gemm": Case(
        absorb_preceding_affine,
        """(float[2,3] x, float[3,4] W, float[4] Bias, float[3] A, float[3] Pb) => (float[2,4] y)
        {a = Sub(x, A) b = Div(a, Pb) y = Gemm<alpha = 2.0, beta = 0.5>(b, W, Bias)}""",
        "Gemm",
    ),
    "a scale before a transposed convolution": Case(
        absorb_preceding_affine,
        f"""({IMAGE}, float[4,2,3,3] W, float[4,1,1] A) => (float[1,4,8,8] y)
        {{a = Mul(x, A) y = ConvTranspose<group = 2>(a, W)}}""",
        "ConvTranspose",
    ),
    "a constant that adds input channels": Case(
        absorb_preceding_affine,
        """(float[1,1,6,6] x, float[2,3,1,1] W, float[3,1,1] A) => (float[1,2,6,6] y)
        {a = Mul(x, A) y = Conv(a, W)}""",
        "Mul Conv",
    ),
    "batchnorm alone": Case(
        expand_batchnorm,
        f"(float[1,4,6,6] c, {BN_INPUTS}) => (float[1,4,6,6] y) {{y = BatchNormalization{BN}}}",
        "Mul Add",
    ),
    "zeros around a convolution": Case(
        absorb_pads,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,7,8] y)
        <int64[8] p = {{0, 0, 0, 1, 0, 0, 1, 1}}>
        {{a = Pad(x, p) y = Conv<pads = [1, 1, 1, 1]>(a, W)}}""",
        "Conv",
    ),
    "zeros around some axes": Case(
        absorb_pads,
        f"""({IMAGE}, float[2,4,3,3] W, float Zero) => (float[1,2,6,4] y)
        <int64[2] p = {{1, 1}}, int64[1] axes = {{-2}}, float zero = {{0}}>
        {{a = Pad(x, p, zero, axes) y = Conv<auto_pad = "VALID">(a, W)}}""",
        "Conv",
    ),
    "ones around a convolution": Case(
        absorb_pads,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,6,6] y)
        <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, float one = {{1}}>
        {{a = Pad(x, p, one) y = Conv(a, W)}}""",
        "Pad Conv",
    ),
    "padded channels": Case(
        absorb_pads,
        """(float[1,3,6,6] x, float[2,4,3,3] W) => (float[1,2,4,4] y)
        <int64[8] p = {0, 1, 0, 0, 0, 0, 0, 0}> {a = Pad(x, p) y = Conv(a, W)}""",
        "Pad Conv",
    ),
    "zeros that an average counts": Case(
        absorb_pads,
        f"""({IMAGE}) => (float[1,4,7,7] y) <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}>
        {{a = Pad(x, p) y = AveragePool<kernel_shape = [2, 2]>(a)}}""",
        "AveragePool",
    ),
    "zeros beside padding that does not count": Case(
        absorb_pads,
        f"""({IMAGE}) => (float[1,4,9,9] y) <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}>
        {{a = Pad(x, p) y = AveragePool<kernel_shape = [2, 2], pads = [1, 1, 1, 1]>(a)}}""",
        "Pad AveragePool",
    ),
    "nothing around a maximum": Case(
        absorb_pads,
        f"""({IMAGE}) => (float[1,4,6,6] y)
        <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}, float low = {{-inf}}>
        {{a = Pad(x, p, low) y = MaxPool<kernel_shape = [3, 3]>(a)}}""",
        "MaxPool",
    ),
    "zeros around a maximum of anything": Case(
        absorb_pads,
        f"""({IMAGE}) => (float[1,4,6,6] y) <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}>
        {{a = Pad(x, p) y = MaxPool<kernel_shape = [3, 3]>(a)}}""",
        "Pad MaxPool",
    ),
    "zeros around a maximum of no negative numbers": Case(
        absorb_pads,
        f"""({IMAGE}) => (float[1,4,6,6] y) <int64[8] p = {{0, 0, 1, 1, 0, 0, 1, 1}}>
        {{r = Relu(x) a = Pad(r, p) y = MaxPool<kernel_shape = [3, 3]>(a)}}""",
        "Relu MaxPool",
    ),
    "a causal convolution": Case(
        absorb_slices,
        """(float[1,4,n] x, float[2,4,3] W) => (float[1,2,n] y)
        <int64[1] zero = {0}, int64[1] end = {-4}, int64[1] axis = {2}>
        {a = Conv<pads = [4, 4], dilations = [2]>(x, W) y = Slice(a, zero, end, axis)}""",
        "Conv",
        {"n": 3},
    ),
    "a cut on both sides, in strides": Case(
        absorb_slices,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,3,4] y)
        <int64[2] start = {{1, 0}}, int64[2] end = {{4, 100}}, int64[2] axes = {{2, 3}}>
        {{a = Conv<pads = [2, 2, 3, 2], strides = [2, 2]>(x, W) y = Slice(a, start, end, axes)}}""",
        "Conv",
    ),
    "a cut into what is not padded": Case(
        absorb_slices,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,4,3] y)
        <int64[1] start = {{0}}, int64[1] end = {{-1}}, int64[1] axis = {{3}}>
        {{a = Conv(x, W) y = Slice(a, start, end, axis)}}""",
        "Conv Slice",
    ),
    "a cut that may leave nothing": Case(
        absorb_slices,
        """(float[1,4,n] x, float[2,4,5] W) => (float[1,2,m] y)
        <int64[1] zero = {0}, int64[1] end = {-1}, int64[1] axis = {2}>
        {a = Conv<pads = [1, 1]>(x, W) y = Slice(a, zero, end, axis)}""",
        "Conv Slice",
        {"n": 3, "m": 0},
    ),
    "cut channels": Case(
        absorb_slices,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,1,6,6] y)
        <int64[1] zero = {{0}}, int64[1] end = {{1}}, int64[1] axis = {{1}}>
        {{a = Conv<pads = [1, 1, 1, 1]>(x, W) y = Slice(a, zero, end, axis)}}""",
        "Conv Slice",
    ),
    "every other pixel": Case(
        absorb_slices,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,6,3] y)
        <int64[1] zero = {{0}}, int64[1] end = {{6}}, int64[1] axis = {{3}}, int64[1] step = {{2}}>
        {{a = Conv<pads = [1, 1, 1, 1]>(x, W) y = Slice(a, zero, end, axis, step)}}""",
        "Conv Slice",
    ),
    "a causal transposed convolution": Case(
        absorb_slices,
        """(float[1,4,n] x, float[4,2,4] W) => (float[1,2,m] y)
        <int64[1] zero = {1}, int64[1] end = {-2}, int64[1] axis = {-1}>
        {a = ConvTranspose<strides = [2], output_padding = [1]>(x, W) y = Slice(a, zero, end, axis)}
        """,
        "ConvTranspose",
        {"n": 3, "m": 6},
    ),
    "taps beside the picture": Case(
        trim_kernels,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,6,6] y)
        {{y = Conv<pads = [7, 6, 7, 6], dilations = [7, 6]>(x, W)}}""",
        "Conv",
    ),
    "taps above and to the right of the picture": Case(
        trim_kernels,
        """(float[n,4,2,9] x, float[2,4,5,3] W) => (float[n,2,2,4] y)
        {y = Conv<pads = [4, 0, 2, 18], strides = [2, 3], dilations = [1, 8]>(x, W)}""",
        "Conv",
        {"n": 2},
    ),
    "a kernel around a single pixel": Case(
        trim_kernels,
        """(float[1,4,1,1] x, float[6,2,3,3] W, float[6] B) => (float[1,6,1,1] y)
        {y = Conv<auto_pad = "SAME_UPPER", group = 2>(x, W, B)}""",
        "Conv",
    ),
    "taps that all meet the picture": Case(
        trim_kernels,
        f"""({IMAGE}, float[2,4,3,3] W) => (float[1,2,6,6] y)
        {{y = Conv<pads = [5, 5, 5, 5], dilations = [5, 5]>(x, W)}}""",
        "Conv",
    ),
    "taps beside a picture of unknown size": Case(
        trim_kernels,
        """(float[1,4,n,6] x, float[2,4,3,3] W) => (float[1,2,n,6] y)
        {y = Conv<pads = [7, 7, 7, 7], dilations = [7, 7]>(x, W)}""",
        "Conv",
        {"n": 6},
    ),
    "product as sum": einsum("mk,kn->mn", "3,4", "4,5", "3,5", "MatMul"),
    "product without arrow": einsum("mk, kn", "3,4", "4,5", "3,5", "MatMul"),
    "scores as sum": einsum(
        "bhie,bhje->bhij", "b,2,s,3", "b,2,t,3", "b,2,s,t", "Transpose MatMul", BST
    ),
    "scores of keys as sum": einsum(
        "bhje,bhie->bhij", "b,2,t,3", "b,2,s,3", "b,2,s,t", "Transpose MatMul", BST
    ),
    "heads as sum": einsum(
        "btd,dhe->bhte", "b,t,6", "6,2,3", "b,2,t,3", "Reshape MatMul Reshape Transpose", BST
    ),
    "heads joined as sum": einsum(
        "bhte,hed->btd", "b,2,t,3", "2,3,6", "b,t,6", "Transpose Reshape Reshape MatMul", BST
    ),
    "outer batch as sum": einsum(
        "bhte,htse->bhts",
        "b,2,5,3",
        "2,5,4,3",
        "b,2,5,4",
        "Transpose Transpose MatMul Transpose",
        BST,
    ),
    "vectors as sum": einsum(
        "bd,btd->bt", "b,6", "b,4,6", "b,4", "Reshape Transpose MatMul Reshape", BST
    ),
    "numbers as sum": einsum("i,i->", "7", "7", "", "Reshape Reshape MatMul Reshape"),
    "broadcast axes as sum": einsum(
        "...ij,...jk->...ik", "2,3,4,5", "2,3,5,6", "2,3,4,6", "MatMul"
    ),
    "columns of two symbols": einsum("ik,kst->ist", "3,4", "4,s,t", "3,s,t", "Einsum", BST),
    "sum of one size with more": einsum("ik,kj->ij", "3,1", "4,5", "3,5", "Einsum"),
    "diagonal as sum": einsum("ii,ij->ij", "3,3", "3,5", "3,5", "Einsum"),
    "sum of one factor": einsum("ik,j->ij", "3,4", "5", "3,5", "Einsum"),
    "products only": einsum("ij,ij->ij", "3,4", "3,4", "3,4", "Einsum"),
    "dead code": Case(
        eliminate_dead_code,
        """(float[1,1,4,4] x) => (float[1,1,2,2] y)
        {a = Exp(x) b = Log(a) y, i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)}""",
        "MaxPool",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pass_leaves_these_nodes_and_the_same_outputs(name: str) -> None:
    case = CASES[name]
    before = graph_of(case.text)
    after = case.change(before).validate()
    assert " ".join(kinds(after)) == case.left
    assert (after.outputs, after.inputs) == (before.outputs, before.inputs)
    feeds = _feeds(before, case.sizes)
    assert_close(evaluate(after, np, feeds), evaluate(before, np, feeds))


@pytest.mark.parametrize("name", CASES)
def test_pass_returns_the_graph_itself_where_nothing_is_left_to_do(name: str) -> None:
    case = CASES[name]
    once = case.change(graph_of(case.text))
    assert case.change(once) is once


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("taps beside the picture", (2, 4, 1, 1)),
        ("taps above and to the right of the picture", (2, 4, 3, 2)),
        ("a kernel around a single pixel", (6, 2, 1, 1)),
        ("taps that all meet the picture", (2, 4, 3, 3)),
    ],
)
def test_kernels_are_trimmed_to(name: str, left: tuple[int, ...]) -> None:
    graph = trim_kernels(graph_of(CASES[name].text))
    assert graph.constants[str(graph.nodes[0].inputs[1])].shape == left


def test_every_pass_file_is_in_the_pipeline() -> None:
    listed = {change.__module__.rsplit(".", 1)[1] for change in PASSES}
    verbs = (
        "absorb",
        "eliminate",
        "evaluate",
        "expand",
        "fold",
        "form",
        "merge",
        "recognise",
        "trim",
    )
    files = {
        path.stem
        for folder in pass_files.__path__
        for path in Path(folder).glob("*.py")
        if path.stem.startswith((*verbs, "remove"))
    }
    assert listed == files


def _feeds(graph: Graph, sizes: dict[str, int]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    feeds = {}
    for name, declared in graph.inputs.items():
        assert isinstance(declared, TensorType)
        shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in declared.shape]
        feeds[name] = rng.standard_normal(shape).astype(declared.dtype)
    return feeds
