"""Importers of convolutions, matrix products and plain reshaping."""

from __future__ import annotations

import dataclasses

import numpy as np

from mnnpy.converter.importers.base import (
    Imported,
    OnnxNode,
    Row,
    attributes_to_inputs,
    build,
    direct,
    with_inputs,
)
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.activation import Clip
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.shaping import (
    Flatten,
    Reshape,
    Shape,
    Size,
    Squeeze,
    Transpose,
    Unsqueeze,
)


def _clip_6(node: OnnxNode) -> Imported:
    bounds = [node.attributes.get(name) for name in ("min", "max")]
    arrays = [None if bound is None else np.float32(bound) for bound in bounds]
    return with_inputs(node, Clip(), node.inputs[0], *map(_as_array, arrays))


def _as_array(value: np.float32 | None) -> Array | None:
    return None if value is None else np.asarray(value)


def _gemm(node: OnnxNode) -> Op:
    rest = {k: v for k, v in node.attributes.items() if k != "broadcast"}
    return build(Gemm, dataclasses.replace(node, attributes=rest))


ROWS: tuple[Row, ...] = (
    Row("Conv", 1, direct(Conv, "kernel_shape")),
    Row("ConvTranspose", 1, direct(ConvTranspose, "kernel_shape")),
    Row("MatMul", 1, direct(MatMul)),
    Row("Gemm", 1, _gemm),
    Row("Clip", 6, _clip_6),
    Row("Clip", 11, direct(Clip)),
    Row("Reshape", 1, attributes_to_inputs(Reshape, "shape")),
    Row("Reshape", 5, direct(Reshape)),
    Row("Flatten", 1, direct(Flatten)),
    Row("Squeeze", 1, attributes_to_inputs(Squeeze, "axes")),
    Row("Squeeze", 13, direct(Squeeze)),
    Row("Unsqueeze", 1, attributes_to_inputs(Unsqueeze, "axes")),
    Row("Unsqueeze", 13, direct(Unsqueeze)),
    Row("Transpose", 1, direct(Transpose)),
    Row("Shape", 1, direct(Shape)),
    Row("Size", 1, direct(Size)),
)
