"""Linear algebra beyond products."""

from __future__ import annotations

from typing import ClassVar

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen


class Det(Op):
    """Determinants of square matrices, ONNX Det-22: (..., m, m) -> (...)."""

    __slots__ = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        _require_square(x)
        return (TensorType(x.dtype, x.shape[:-2]),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.asarray(xp.linalg.det(widen(x))).astype(x.dtype),)


class Inverse(Op):
    """Inverses of square matrices, com.microsoft Inverse-1: (..., m, m) -> (..., m, m)."""

    __slots__ = ()
    domain: ClassVar[str] = "com.microsoft"

    def infer(self, x: Value) -> tuple[Type, ...]:
        _require_square(x)
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.linalg.inv(widen(x)).astype(x.dtype),)


def _require_square(x: Value) -> None:
    if x.rank < 2 or differ(x.shape[-1], x.shape[-2]):
        raise ShapeError(f"needs square matrices, not {x.shape}")


OPERATORS: tuple[type[Op], ...] = (Det, Inverse)
