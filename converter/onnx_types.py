"""ONNX's element types and value types as ours."""

from __future__ import annotations

import onnx

from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.types import (
    DTYPES,
    DType,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    UnknownType,
    dtype_name,
)

_RENAMED = {
    "float": "float32",
    "double": "float64",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float6e2m3": "float6_e2m3fn",
    "float6e3m2": "float6_e3m2fn",
    "float4e2m1": "float4_e2m1fn",
}


def dtype_of(elem_type: int) -> DType:
    """NumPy dtype of an ONNX element type. Raises ``InvalidModelError`` on unknown numbers."""
    try:
        name = onnx.TensorProto.DataType.Name(elem_type).lower()
    except ValueError:
        raise InvalidModelError(f"element type {elem_type} does not exist in ONNX") from None
    dtype = DTYPES.get(_RENAMED.get(name, name))
    if dtype is None:
        raise InvalidModelError(f"element type {name} is not supported")
    return dtype


_ELEM_TYPES = {
    DTYPES[_RENAMED.get(name.lower(), name.lower())]: number
    for name, number in onnx.TensorProto.DataType.items()
    if _RENAMED.get(name.lower(), name.lower()) in DTYPES
}


def dtype_field(elem_type: int | None) -> str | None:
    """An ONNX element type as an operator's field: its name; None where it is 0 or absent."""
    return dtype_name(dtype_of(elem_type)) if elem_type else None


def read_type(proto: onnx.TypeProto, name: str = "") -> Type:
    """ONNX's type as ours; no shape makes the type unknown.

    Unnamed dimensions get a symbol of the value's ``name``, so that they never look equal.
    """
    kind = proto.WhichOneof("value")
    if kind is None:
        return UnknownType()
    if kind == "sequence_type":
        return SequenceType(read_type(proto.sequence_type.elem_type, name))
    if kind == "optional_type":
        return OptionalType(read_type(proto.optional_type.elem_type, name))
    if kind != "tensor_type":
        raise InvalidModelError(f"values of type {kind} are not supported")
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return UnknownType()
    dims: list[int | SymbolicDim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            dims.append(dim.dim_value)
        else:
            require_text(dim.dim_param)
            dims.append(SymbolicDim.named(dim.dim_param or f"{name}[{axis}]"))
    return TensorType(dtype_of(tensor.elem_type), tuple(dims))


def require_text(*texts: str) -> None:
    """Raise ``InvalidModelError`` where protobuf gives bytes for a name that is not UTF-8."""
    for text in texts:
        if not isinstance(text, str):
            raise InvalidModelError(f"the model has the name {text!r}, which is not UTF-8")


def write_type(value_type: Type | None) -> onnx.TypeProto | None:
    """Our type as ONNX's, None where it is not known."""
    if isinstance(value_type, SequenceType | OptionalType):
        element = write_type(value_type.element)
        if element is None:
            return None
        if isinstance(value_type, SequenceType):
            return onnx.helper.make_sequence_type_proto(element)
        return onnx.helper.make_optional_type_proto(element)
    if isinstance(value_type, TensorType):
        dims = [dim if isinstance(dim, int) else str(dim) for dim in value_type.shape]
        return onnx.helper.make_tensor_type_proto(_ELEM_TYPES[value_type.dtype], dims)
    return None
