"""Logical types of values: element type and shape, no layout and no device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from mnnpy.runtime.graph.dims import Dim, Shape, SymbolicDim, UndecidedError, is_static

Array: TypeAlias = Any
"""An array of the caller's array module (NumPy or CuPy)."""

ArrayModule: TypeAlias = Any
"""``numpy`` or ``cupy``."""

DType: TypeAlias = np.dtype[Any]

STRING: DType = np.dtype(object)
"""Strings live as Python objects, outside the arena."""

FLOAT32, FLOAT64, FLOAT16 = (np.dtype(t) for t in (np.float32, np.float64, np.float16))
INT64, INT32, INT8, UINT8 = (np.dtype(t) for t in (np.int64, np.int32, np.int8, np.uint8))
BOOL = np.dtype(np.bool_)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in map(
        np.dtype,
        (
            *(np.float16, np.float32, np.float64, np.bool_, np.complex64, np.complex128),
            *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
            *(ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2),
            *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2),
            *(ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e8m0fnu, ml_dtypes.float4_e2m1fn),
            *(ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn),
        ),
    )
} | {"string": STRING}


def dtype_name(dtype: DType) -> str:
    """``"float32"``, ``"bfloat16"``, ``"string"``, ...: the inverse of ``DTYPES``."""
    return "string" if dtype == STRING else dtype.name


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's element type and shape; dimensions may be symbolic."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def static(self) -> bool:
        return is_static(self.shape)

    @property
    def size(self) -> int:
        """Number of elements. Raises ``UndecidedError`` on symbolic shapes."""
        count = math.prod(self.shape)
        if isinstance(count, SymbolicDim):
            raise UndecidedError(str(count))
        return count

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)}({', '.join(map(str, self.shape))})"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """An ONNX sequence; a Python list at run time. ``element`` is None where it is not known."""

    element: Type | None

    def __str__(self) -> str:
        return f"sequence({self.element or '?'})"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """An ONNX optional; the element or ``None`` at run time."""

    element: Type | None

    def __str__(self) -> str:
        return f"optional({self.element or '?'})"


@dataclass(frozen=True, slots=True)
class UnknownType:
    """Where no type can be said: inputs of a subgraph, which what surrounds it decides, and
    results that only the data decides. Inference turns it into a :class:`Value` without type.
    """

    def __str__(self) -> str:
        return "?"


Type: TypeAlias = TensorType | SequenceType | OptionalType | UnknownType


def type_of(content: Any) -> Type:
    """Type of what a value holds at run time: an array, a list (sequence) or None (optional)."""
    if content is None:
        return OptionalType(None)
    if isinstance(content, list):
        elements = {type_of(element) for element in content}
        return SequenceType(elements.pop() if len(elements) == 1 else None)
    return TensorType(np.dtype(content.dtype), tuple(content.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What is known of a value before running: its type and, where evaluated, its content.

    ``type`` is None where inference could not decide it. ``known`` of an integer tensor may be an
    object array that holds symbolic dimensions (the content of ``Shape`` on a symbolic tensor).
    """

    type: Type | None
    known: Array | None = None

    @property
    def tensor(self) -> TensorType:
        """The type, where only a tensor makes sense. Raises ``UndecidedError`` otherwise."""
        if not isinstance(self.type, TensorType):
            raise UndecidedError(f"no tensor type: {self.type}")
        return self.type

    @property
    def shape(self) -> Shape:
        return self.tensor.shape

    @property
    def dtype(self) -> DType:
        return self.tensor.dtype

    @property
    def rank(self) -> int:
        return len(self.tensor.shape)

    def ints(self) -> tuple[Dim, ...]:
        """Content as integers (dimensions). Raises ``UndecidedError`` where it is not known."""
        if self.known is None:
            raise UndecidedError("content not known")
        flat = np.asarray(self.known).reshape(-1)
        return tuple(d if isinstance(d, SymbolicDim) else int(d) for d in flat.tolist())

    @property
    def constant(self) -> bool:
        """Whether the whole content is known as numbers."""
        return self.known is not None and (self.known.dtype != object or self.dtype == STRING)
