"""Operators: one file per family, one frozen dataclass per operator."""

from __future__ import annotations

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation, convolution, elementwise, matmul, shaping

_FAMILIES = (activation, convolution, elementwise, matmul, shaping)

OPERATORS: dict[str, type[Op]] = {
    f"{op.domain}.{op.__name__}" if op.domain else op.__name__: op
    for family in _FAMILIES
    for op in family.OPERATORS
}
"""Every operator by its kind (ONNX spelling): what the model file's codec knows."""
