"""Linear algebra beyond products."""

from __future__ import annotations

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen


class Det(Op):
    """Determinants of square matrices, ONNX Det-22: (..., m, m) -> (...)."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank < 2 or differ(x.shape[-1], x.shape[-2]):
            raise ShapeError(f"Det takes square matrices, not {x.shape}")
        return (TensorType(x.dtype, x.shape[:-2]),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.asarray(xp.linalg.det(widen(x))).astype(x.dtype),)


OPERATORS: tuple[type[Op], ...] = (Det,)
