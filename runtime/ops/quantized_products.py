"""Convolutions and matrix products of quantised numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    Array,
    ArrayModule,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.quantization import exact, quantized
from mnnpy.runtime.ops.shape_math import matmul_shape


class MatMulInteger(Op):
    """(a - a_zero) (b - b_zero) in int32, ONNX MatMulInteger-10.

    Zero points are scalars, or one per row of a and one per column of b.
    """

    __slots__ = ()

    def infer(
        self, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None
    ) -> tuple[Type, ...]:
        return (TensorType(INT32, matmul_shape(a.shape, b.shape)),)

    def reference(
        self,
        xp: ArrayModule,
        a: Array,
        b: Array,
        a_zero: Array | None = None,
        b_zero: Array | None = None,
    ) -> tuple[Array, ...]:
        sums = xp.matmul(_centred(a, _per_row(a_zero)), _centred(b, _scalar(b_zero)))
        return (_wrapped(sums),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        return MatMul().macs(inputs, outputs)


class QLinearMatMul(Op):
    """Matrix product of quantised matrices, quantised again, ONNX QLinearMatMul-21.

    a : (..., m, k), b : (..., k, n), each followed by its scale and zero point (scalars, or one
    per row of a and one per column of b), then y's -> (..., m, n).
    """

    __slots__ = ()

    def infer(
        self,
        a: Value,
        a_scale: Value,
        a_zero: Value,
        b: Value,
        b_scale: Value,
        b_zero: Value,
        y_scale: Value,
        y_zero: Value,
    ) -> tuple[Type, ...]:
        return (TensorType(y_zero.dtype, matmul_shape(a.shape, b.shape)),)

    def reference(
        self,
        xp: ArrayModule,
        a: Array,
        a_scale: Array,
        a_zero: Array,
        b: Array,
        b_scale: Array,
        b_zero: Array,
        y_scale: Array,
        y_zero: Array,
    ) -> tuple[Array, ...]:
        sums = xp.matmul(_centred(a, _per_row(a_zero)), _centred(b, _scalar(b_zero)))
        a_scale, b_scale, y_scale = map(widen, (a_scale, b_scale, y_scale))
        factor = _per_row(a_scale) * _scalar(b_scale) / _scalar(y_scale)
        return (_requantized(xp, sums, factor, y_zero),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        return MatMul().macs([inputs[0], inputs[3]], outputs)


@dataclass(frozen=True, slots=True)
class QuantizedConv(Op):
    """Base of convolutions of quantised numbers; the attributes are those of Conv."""

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    auto_pad: str = "NOTSET"

    @property
    def conv(self) -> Conv:
        """The convolution of the centred numbers."""
        return Conv(self.strides, self.pads, self.dilations, self.group, self.auto_pad)

    def sums(self, x: Value, w: Value, w_zero: Value | None, b: Value | None = None) -> TensorType:
        """Type of the int32 sums. Raises ``ShapeError`` where the inputs do not fit."""
        for name, value in (("w's zero point", w_zero), ("bias", b)):
            if value is None or value.rank == 0 or value.shape == (1,):
                continue
            if value.rank > 1 or differ(value.shape[0], w.shape[0]):
                raise ShapeError(f"{name} of shape {value.shape} for {w.shape[0]} output channels")
        centred = (Value(TensorType(INT32, value.shape)) for value in (x, w))
        (sums,) = self.conv.infer(*centred)
        assert isinstance(sums, TensorType)
        return sums


@dataclass(frozen=True, slots=True)
class ConvInteger(QuantizedConv):
    """Convolution of (x - x_zero) with (w - w_zero) in int32, ONNX ConvInteger-10.

    x_zero is a scalar, w_zero a scalar or one per output channel. Padding counts as x_zero.
    """

    def infer(
        self, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None
    ) -> tuple[Type, ...]:
        return (self.sums(x, w, w_zero),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        w: Array,
        x_zero: Array | None = None,
        w_zero: Array | None = None,
    ) -> tuple[Array, ...]:
        weights = _centred(w, _per_channel(w_zero, w.ndim))
        (sums,) = self.conv.reference(xp, _centred(x, _scalar(x_zero)), weights)
        return (_wrapped(sums),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        return self.conv.macs(inputs, outputs)


@dataclass(frozen=True, slots=True)
class QLinearConv(QuantizedConv):
    """Convolution of quantised numbers, quantised again, ONNX QLinearConv-10.

    x, w and y have scales and zero points, w's also one per output channel; the bias b : (k,) is
    int32 in units of x_scale * w_scale.
    """

    def infer(
        self,
        x: Value,
        x_scale: Value,
        x_zero: Value,
        w: Value,
        w_scale: Value,
        w_zero: Value,
        y_scale: Value,
        y_zero: Value,
        b: Value | None = None,
    ) -> tuple[Type, ...]:
        return (TensorType(y_zero.dtype, self.sums(x, w, w_zero, b).shape),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        x_scale: Array,
        x_zero: Array,
        w: Array,
        w_scale: Array,
        w_zero: Array,
        y_scale: Array,
        y_zero: Array,
        b: Array | None = None,
    ) -> tuple[Array, ...]:
        weights = _centred(w, _per_channel(w_zero, w.ndim))
        (sums,) = self.conv.reference(xp, _centred(x, _scalar(x_zero)), weights, b)
        factor = _scalar(x_scale) * _per_channel(w_scale, w.ndim - 1) / _scalar(y_scale)
        return (_requantized(xp, sums, factor, y_zero),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        return self.conv.macs([inputs[0], inputs[3]], outputs)


def _centred(x: Array, zero_point: Array | None) -> Array:
    """Exact differences to the zero point, which broadcasts against x.

    They are float64, whose products and sums are those of whole numbers below 2**53, and the only
    ones of these that libraries multiply fast.
    """
    centred = exact(x) if zero_point is None else exact(x) - exact(zero_point)
    return centred.astype(FLOAT64)


def _wrapped(sums: Array) -> Array:
    """Sums in float64 as int32, which wraps around."""
    return sums.astype(INT64).astype(INT32)


def _requantized(xp: ArrayModule, sums: Array, factor: Array, zero_point: Array) -> Array:
    return quantized(
        xp, sums.astype(FLOAT32) * widen(factor), _scalar(zero_point), zero_point.dtype
    )


def _scalar(x: Array) -> Array:
    """Without axes, where there is one element only."""
    return x.reshape(()) if x is not None and x.size == 1 else x


def _per_row(x: Array) -> Array:
    """One number, or one per row of a matrix: as a column."""
    return x[:, None] if x is not None and x.ndim == 1 and x.size > 1 else _scalar(x)


def _per_channel(x: Array, rank: int) -> Array:
    """One number, or one per channel, which is the first of ``rank`` axes."""
    return x.reshape(-1, *(1,) * (rank - 1)) if x is not None and x.size > 1 else _scalar(x)


OPERATORS: tuple[type[Op], ...] = (MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv)
