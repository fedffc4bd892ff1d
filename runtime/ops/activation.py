"""Activations: elementwise functions with attributes."""

from __future__ import annotations

from dataclasses import dataclass

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, Type, Value
from mnnpy.runtime.ops.elementwise import Elementwise, Unary


class Relu(Unary):
    """max(x, 0); NaN stays NaN."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.maximum(x, xp.zeros((), dtype=x.dtype)),)


class Sigmoid(Unary):
    """1 / (1 + exp(-x)), without overflow for large negative x."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        decay = xp.exp(-xp.absolute(x))
        return (xp.where(x >= 0, 1 / (1 + decay), decay / (1 + decay)).astype(x.dtype),)


class Tanh(Unary):
    __slots__ = ()
    ufunc = "tanh"


class Clip(Elementwise):
    """min(max(x, lower), upper), bounds being optional scalars (Clip-13)."""

    __slots__ = ()

    def infer(self, x: Value, lower: Value | None = None, upper: Value | None = None) -> tuple[Type, ...]:
        return (x.tensor,)

    def reference(
        self, xp: ArrayModule, x: Array, lower: Array | None = None, upper: Array | None = None
    ) -> tuple[Array, ...]:
        if lower is not None:
            x = xp.maximum(x, lower.reshape(()))
        if upper is not None:
            x = xp.minimum(x, upper.reshape(()))
        return (x,)


@dataclass(frozen=True, slots=True)
class LeakyRelu(Unary):
    """x where x >= 0, else alpha * x (LeakyRelu-16)."""

    alpha: float = 0.01

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.where(x >= 0, x, x * xp.asarray(self.alpha, dtype=x.dtype)),)


@dataclass(frozen=True, slots=True)
class HardSigmoid(Unary):
    """max(0, min(1, alpha * x + beta)) (HardSigmoid-6)."""

    alpha: float = 0.2
    beta: float = 0.5

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (xp.clip(x * self.alpha + self.beta, 0, 1).astype(x.dtype),)


class HardSwish(Unary):
    """x * HardSigmoid(x) with alpha 1/6 and beta 1/2 (HardSwish-14)."""

    __slots__ = ()

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return ((x * xp.clip(x / 6 + 0.5, 0, 1)).astype(x.dtype),)


OPERATORS: tuple[type[Op], ...] = (Relu, Sigmoid, Tanh, Clip, LeakyRelu, HardSigmoid, HardSwish)
