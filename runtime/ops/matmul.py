"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import matmul_shape, require_broadcast_to


class MatMul(Op):
    """Matrix product with NumPy's rules, ONNX MatMul-13.

    a : (..., m, k), b : (..., k, n) -> (..., m, n); vectors as in ``numpy.matmul``.
    """

    __slots__ = ()

    def infer(self, a: Value, b: Value) -> tuple[Type, ...]:
        require_same_dtype(a, b)
        return (TensorType(a.dtype, matmul_shape(a.shape, b.shape)),)

    def reference(self, xp: ArrayModule, a: Array, b: Array) -> tuple[Array, ...]:
        return (xp.matmul(widen(a), widen(b)).astype(a.dtype, copy=False),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        a, y = inputs[0], outputs[0]
        assert a is not None and isinstance(y, TensorType)
        return y.size * int(a.shape[-1])


@dataclass(frozen=True, slots=True)
class Gemm(Op):
    """alpha * A' B' + beta * C, ONNX Gemm-13.

    a : (m, k) or transposed, b : (k, n) or transposed, c : broadcast to (m, n) or absent.
    """

    alpha: float = 1.0
    beta: float = 1.0
    transA: int = 0
    transB: int = 0

    def infer(self, a: Value, b: Value, c: Value | None = None) -> tuple[Type, ...]:
        require_same_dtype(a, b)
        if a.rank != 2 or b.rank != 2:
            raise ShapeError(f"Gemm takes matrices, not shapes {a.shape} and {b.shape}")
        m, k = reversed(a.shape) if self.transA else a.shape
        other, n = reversed(b.shape) if self.transB else b.shape
        if differ(k, other):
            raise ShapeError(f"inner dimensions differ: {k} and {other}")
        if c is not None:
            require_same_dtype(a, c)
            require_broadcast_to(c.shape, (m, n))
        return (TensorType(a.dtype, (m, n)),)

    def reference(
        self, xp: ArrayModule, a: Array, b: Array, c: Array | None = None
    ) -> tuple[Array, ...]:
        y = xp.matmul(widen(a.T if self.transA else a), widen(b.T if self.transB else b))
        if self.alpha != 1:
            y = y * xp.asarray(self.alpha, dtype=y.dtype)
        if c is not None and self.beta:
            y = y + (c if self.beta == 1 else c * xp.asarray(self.beta, dtype=y.dtype))
        return (y.astype(a.dtype),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        a, y = inputs[0], outputs[0]
        assert a is not None and isinstance(y, TensorType)
        return y.size * int(a.shape[0 if self.transA else 1])


OPERATORS: tuple[type[Op], ...] = (MatMul, Gemm)
