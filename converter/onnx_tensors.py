"""Content of ONNX tensors as NumPy arrays, their sizes checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from mnnpy.converter.onnx_types import dtype_of
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.types import FLOAT32, INT64, STRING, Array

_BITS: Mapping[int, int] = {
    onnx.TensorProto.FLOAT6E2M3: 6,
    onnx.TensorProto.FLOAT6E3M2: 6,
    onnx.TensorProto.FLOAT4E2M1: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
}
"""Element types that ONNX packs below a byte."""

MAX_DENSE_NBYTES = 2**31
"""A sparse tensor may not grow beyond what a dense one could hold in a protobuf message."""


def stored_nbytes(proto: onnx.TensorProto) -> int:
    """Bytes that the tensor's content takes as raw data, from its type and dimensions alone.

    Raises
    ------
    InvalidModelError
        On unknown or unsized element types and on negative dimensions.
    """
    dtype = dtype_of(proto.data_type)
    if dtype == STRING:
        raise InvalidModelError(f"{_named(proto)} holds strings, which have no raw form")
    bits = _BITS.get(proto.data_type, dtype.itemsize * 8)
    return -(-_count(proto) * bits // 8)


def check_size(proto: onnx.TensorProto) -> None:
    """Raise ``InvalidModelError`` unless the tensor holds as much data as its dimensions say."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise InvalidModelError(
            f"{_named(proto)} keeps its data in another file, which was not loaded: "
            "give the model as a path"
        )
    if proto.HasField("segment"):
        raise InvalidModelError(f"{_named(proto)} is a segment, which ONNX does not use any more")
    dtype = dtype_of(proto.data_type)
    if proto.HasField("raw_data"):
        wanted, found, unit = stored_nbytes(proto), len(proto.raw_data), "bytes"
    else:
        field = onnx.helper.tensor_dtype_to_field(proto.data_type)
        wanted, found, unit = _count(proto), len(getattr(proto, field)), "elements"
        if dtype.kind == "c":
            wanted *= 2
        elif _BITS.get(proto.data_type, 8) < 6:
            wanted = stored_nbytes(proto)
    if wanted != found:
        raise InvalidModelError(
            f"{_named(proto)} of {dtype.name if dtype != STRING else 'string'} and dimensions "
            f"{list(proto.dims)} takes {wanted} {unit}, the model holds {found}"
        )


def tensor_array(proto: onnx.TensorProto) -> Array:
    """Content of an ONNX tensor as a read-only NumPy array; strings as ``str`` objects."""
    check_size(proto)
    try:
        array = np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidModelError(f"{_named(proto)} cannot be read: {error}") from error
    if array.dtype.kind in "OSU":
        strings = np.empty(array.size, dtype=STRING)
        strings[:] = [s.decode() if isinstance(s, bytes) else str(s) for s in array.reshape(-1)]
        array = strings.reshape(array.shape)
    array.flags.writeable = False
    return array


def sparse_array(proto: onnx.SparseTensorProto) -> Array:
    """A sparse tensor as a dense array."""
    values, indices = tensor_array(proto.values), tensor_array(proto.indices)
    shape = tuple(proto.dims)
    if min(shape, default=1) < 0 or prod(shape) * values.dtype.itemsize > MAX_DENSE_NBYTES:
        raise InvalidModelError(
            f"sparse {_named(proto.values)} has the dimensions {list(shape)}: negative or too large"
        )
    dense = np.zeros(shape, dtype=values.dtype)
    flat = indices if indices.ndim == 1 else _flat_indices(indices, shape)
    if flat is None or flat.shape != values.shape or not _within(flat, dense.size):
        raise InvalidModelError(
            f"sparse {_named(proto.values)}: indices of shape {list(indices.shape)} do not fit "
            f"{values.size} values in dimensions {list(shape)}"
        )
    dense.reshape(-1)[flat] = values
    dense.flags.writeable = False
    return dense


def constant_array(proto: onnx.NodeProto) -> Array:
    """Content of a Constant node, whichever attribute holds it."""
    if len(proto.attribute) != 1:
        raise InvalidModelError(
            f"Constant node {proto.name!r} has {len(proto.attribute)} attributes, it takes one"
        )
    (attribute,) = proto.attribute
    if attribute.name == "value":
        return tensor_array(attribute.t)
    if attribute.name == "sparse_value":
        return sparse_array(attribute.sparse_tensor)
    try:
        dtype, kind = _CONSTANT_ATTRIBUTES[attribute.name]
    except KeyError:
        raise InvalidModelError(
            f"Constant node {proto.name!r} has the attribute {attribute.name!r}, none of value, "
            f"sparse_value, {', '.join(_CONSTANT_ATTRIBUTES)}"
        ) from None
    if attribute.type != kind:
        raise InvalidModelError(
            f"Constant node {proto.name!r}: attribute {attribute.name!r} has another type"
        )
    value = onnx.helper.get_attribute_value(attribute)
    if dtype == STRING:
        value = _decoded(value) if isinstance(value, bytes) else [*map(_decoded, value)]
    return np.array(value, dtype=dtype)


_CONSTANT_ATTRIBUTES = {
    "value_float": (FLOAT32, onnx.AttributeProto.FLOAT),
    "value_floats": (FLOAT32, onnx.AttributeProto.FLOATS),
    "value_int": (INT64, onnx.AttributeProto.INT),
    "value_ints": (INT64, onnx.AttributeProto.INTS),
    "value_string": (STRING, onnx.AttributeProto.STRING),
    "value_strings": (STRING, onnx.AttributeProto.STRINGS),
}


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _count(proto: onnx.TensorProto) -> int:
    if min(proto.dims, default=0) < 0:
        raise InvalidModelError(f"{_named(proto)} has the dimensions {list(proto.dims)}")
    return prod(proto.dims)


def _named(proto: onnx.TensorProto) -> str:
    return f"tensor {proto.name!r}" if proto.name else "an unnamed tensor"


def _flat_indices(indices: Array, shape: tuple[int, ...]) -> Array | None:
    """(values, rank) coordinates as positions in the flattened tensor; None where out of range."""
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        return None
    if not all(_within(column, dim) for column, dim in zip(indices.T, shape, strict=True)):
        return None
    if not indices.size:
        return np.zeros(len(indices), dtype=np.int64)
    return np.ravel_multi_index(tuple(indices.T), shape)


def _within(indices: Array, size: int) -> bool:
    return bool(indices.size == 0 or (indices.min() >= 0 and indices.max() < size))
