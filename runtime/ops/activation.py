"""Activations: elementwise functions, most of them with attributes.

Floats narrower than 32 bits are computed in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import Elementwise, Unary, require_same_dtype
from mnnpy.runtime.ops.numeric import erf, sigmoid, widen
from mnnpy.runtime.ops.shape_math import require_broadcast_to


class Activation(Unary):
    """Base of functions of one input; ``compute`` sees it in float32 or float64."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (self.compute(xp, widen(x)).astype(x.dtype, copy=False),)

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        """The formula."""
        raise NotImplementedError(self.kind)


class Relu(Unary):
    """max(x, 0); NaN stays NaN."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.maximum(x, xp.zeros((), dtype=x.dtype)),)


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    __slots__ = ()

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return sigmoid(xp, x)


class Tanh(Unary):
    __slots__ = ()
    ufunc = "tanh"


class Clip(Elementwise):
    """min(max(x, lower), upper), bounds being optional scalars (Clip-13)."""

    __slots__ = ()

    def infer(
        self, x: Value, lower: Value | None = None, upper: Value | None = None
    ) -> tuple[Type, ...]:
        for bound in (lower, upper):
            if bound is not None and any(differ(dim, 1) for dim in bound.shape):
                raise ShapeError(f"a bound of shape {bound.shape}: bounds are scalars")
        return (x.tensor,)

    def reference(
        self, xp: ArrayModule, x: Array, lower: Array | None = None, upper: Array | None = None
    ) -> tuple[Array, ...]:
        if lower is not None:
            x = xp.maximum(x, lower.reshape(()).astype(x.dtype))
        if upper is not None:
            x = xp.minimum(x, upper.reshape(()).astype(x.dtype))
        return (x,)


@dataclass(frozen=True, slots=True)
class LeakyRelu(Activation):
    """x where x >= 0, else alpha * x (LeakyRelu-16)."""

    alpha: float = 0.01

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return xp.where(x >= 0, x, x * self.alpha)


class PRelu(Elementwise):
    """x where x >= 0, else slope * x; the slope is broadcast to x (PRelu-16)."""

    __slots__ = ()

    def infer(self, x: Value, slope: Value) -> tuple[Type, ...]:
        require_same_dtype(x, slope)
        require_broadcast_to(slope.shape, x.shape)
        return (TensorType(x.dtype, x.shape),)

    def reference(self, xp: ArrayModule, x: Array, slope: Array) -> tuple[Array, ...]:
        return (xp.where(x < 0, x * slope, x),)


@dataclass(frozen=True, slots=True)
class Elu(Activation):
    """x where x >= 0, else alpha * (exp(x) - 1) (Elu-22)."""

    alpha: float = 1.0

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return xp.where(x >= 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))


@dataclass(frozen=True, slots=True)
class Selu(Activation):
    """gamma times Elu (Selu-22)."""

    alpha: float = 1.67326319217681884765625
    gamma: float = 1.05070102214813232421875

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return self.gamma * xp.where(x >= 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))


@dataclass(frozen=True, slots=True)
class Celu(Activation):
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1)) (Celu-28)."""

    alpha: float = 1.0

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        bent = self.alpha * xp.expm1(xp.minimum(x / self.alpha, 0))
        return xp.maximum(x, 0) + xp.minimum(bent, 0)


@dataclass(frozen=True, slots=True)
class ThresholdedRelu(Activation):
    """x where x > alpha, else 0 (ThresholdedRelu-22)."""

    alpha: float = 1.0

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return xp.where(x > self.alpha, x, 0)


@dataclass(frozen=True, slots=True)
class Shrink(Activation):
    """x moved by ``bias`` towards zero where it is beyond ``lambd``, else 0 (Shrink-9)."""

    lambd: float = 0.5
    bias: float = 0.0

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        above = xp.where(x > self.lambd, x - self.bias, 0)
        return xp.where(x < -self.lambd, x + self.bias, above)


@dataclass(frozen=True, slots=True)
class HardSigmoid(Activation):
    """max(0, min(1, alpha * x + beta)) (HardSigmoid-22)."""

    alpha: float = 0.2
    beta: float = 0.5

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return xp.clip(x * self.alpha + self.beta, 0, 1)


class HardSwish(Activation):
    """x * HardSigmoid(x) with alpha 1/6 and beta 1/2 (HardSwish-22)."""

    __slots__ = ()

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return x * xp.clip(x / 6 + 0.5, 0, 1)


@dataclass(frozen=True, slots=True)
class Swish(Activation):
    """x * sigmoid(alpha * x) (Swish-24)."""

    alpha: float = 1.0

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return x * sigmoid(xp, x * self.alpha)


@dataclass(frozen=True, slots=True)
class SwiGLU(Elementwise):
    """Swish of the gate times the second input, ONNX SwiGLU-28."""

    alpha: float = 1.0

    def infer(self, gate: Value, x: Value) -> tuple[Type, ...]:
        require_same_dtype(gate, x)
        if gate.rank != x.rank or any(map(differ, gate.shape, x.shape)):
            raise ShapeError(f"gate of shape {gate.shape} for input of shape {x.shape}")
        return (x.tensor,)

    def reference(self, xp: ArrayModule, gate: Array, x: Array) -> tuple[Array, ...]:
        swish = Swish(self.alpha).compute(xp, widen(gate))
        return ((swish * widen(x)).astype(x.dtype, copy=False),)


class Softplus(Activation):
    """log(1 + exp(x)) (Softplus-22)."""

    __slots__ = ()

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(x)))


class Softsign(Activation):
    """x / (1 + |x|) (Softsign-22)."""

    __slots__ = ()

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return x / (1 + xp.absolute(x))


class Mish(Activation):
    """x * tanh(Softplus(x)) (Mish-22)."""

    __slots__ = ()

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        return x * xp.tanh(Softplus().compute(xp, x))


@dataclass(frozen=True, slots=True)
class Gelu(Activation):
    """x times the normal distribution's cumulative function, or its ``tanh`` estimate (Gelu-20)."""

    approximate: str = "none"

    def compute(self, xp: ArrayModule, x: Array) -> Array:
        if self.approximate == "tanh":
            return x * (0.5 + 0.5 * xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        return x * (0.5 + 0.5 * erf(xp, x * math.sqrt(0.5)))


OPERATORS: tuple[type[Op], ...] = (
    *(Relu, Sigmoid, Tanh, Clip, LeakyRelu, PRelu, Elu, Selu, Celu, ThresholdedRelu, Shrink),
    *(HardSigmoid, HardSwish, Swish, SwiGLU, Softplus, Softsign, Mish, Gelu),
)
