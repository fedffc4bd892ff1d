"""Operators: one file per family, one frozen dataclass per operator."""

from __future__ import annotations

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import (
    activation,
    attention,
    blocks,
    casting,
    control,
    convolution,
    deformable,
    detection,
    dropout,
    einsum,
    elementwise,
    generation,
    grid_sample,
    image,
    indexing,
    linear_algebra,
    linear_attention,
    logic,
    loss,
    matmul,
    ml,
    normalization,
    pooling,
    quantization,
    quantized_products,
    recurrent,
    reduction,
    resize,
    roi,
    selection,
    sequence,
    shaping,
    signal,
    slicing,
    text,
    training,
)

_FAMILIES = (
    activation,
    attention,
    blocks,
    casting,
    control,
    convolution,
    deformable,
    detection,
    dropout,
    einsum,
    elementwise,
    generation,
    grid_sample,
    image,
    indexing,
    linear_algebra,
    linear_attention,
    logic,
    loss,
    matmul,
    ml,
    normalization,
    pooling,
    quantization,
    quantized_products,
    recurrent,
    reduction,
    resize,
    roi,
    selection,
    sequence,
    shaping,
    signal,
    slicing,
    text,
    training,
)

OPERATORS: dict[str, type[Op]] = {
    f"{op.domain}.{op.__name__}" if op.domain else op.__name__: op
    for family in _FAMILIES
    for op in family.OPERATORS
}
"""Every operator by its kind (ONNX spelling): what the model file's codec knows."""
