"""Steps of optimisers, domain ``ai.onnx.preview.training``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, Type, Value


@dataclass(frozen=True, slots=True)
class Optimizer(Op):
    """Base of optimiser steps: rate, count of updates, then groups of equally many tensors.

    The groups are variables, gradients and each kind of state; the outputs are the new variables
    and the new states.
    """

    domain: ClassVar[str] = "ai.onnx.preview.training"
    states: ClassVar[int] = 1

    def infer(self, rate: Value, count: Value, *tensors: Value) -> tuple[Type, ...]:
        groups = 2 + self.states
        if len(tensors) % groups:
            raise ShapeError(f"{len(tensors)} tensors do not form {groups} groups")
        size = len(tensors) // groups
        for place, value in enumerate(tensors):
            if value.shape != tensors[place % size].shape:
                raise ShapeError(f"{tensors[place % size].type} goes with {value.type}")
        return tuple(value.tensor for value in (*tensors[:size], *tensors[2 * size :]))

    def reference(
        self, xp: ArrayModule, rate: Array, count: Array, *tensors: Array
    ) -> tuple[Array, ...]:
        size = len(tensors) // (2 + self.states)
        each = zip(*(tensors[i : i + size] for i in range(0, len(tensors), size)), strict=True)
        steps = [
            [array.astype(group[0].dtype) for array in self.step(xp, rate, count, *group)]
            for group in each
        ]
        return tuple(array for group in zip(*steps, strict=True) for array in group)

    def step(
        self, xp: ArrayModule, rate: Array, count: Array, x: Array, gradient: Array, *state: Array
    ) -> tuple[Array, ...]:
        """New variable and new states of one variable."""
        raise NotImplementedError(self.kind)


@dataclass(frozen=True, slots=True)
class Adagrad(Optimizer):
    """Steps scaled by accumulated squared gradients, ONNX Adagrad-1."""

    decay_factor: float = 0.0
    epsilon: float = 1e-6
    norm_coefficient: float = 0.0

    def step(
        self, xp: ArrayModule, rate: Array, count: Array, x: Array, gradient: Array, *state: Array
    ) -> tuple[Array, ...]:
        (squares,) = state
        gradient = self.norm_coefficient * x + gradient
        squares = squares + gradient * gradient
        rate = rate / (1 + count * self.decay_factor)
        return x - rate * gradient / (xp.sqrt(squares) + self.epsilon), squares


@dataclass(frozen=True, slots=True)
class Momentum(Optimizer):
    """Gradient descent with standard or Nesterov's momentum, ONNX Momentum-1."""

    alpha: float
    beta: float
    mode: str
    norm_coefficient: float

    def step(
        self, xp: ArrayModule, rate: Array, count: Array, x: Array, gradient: Array, *state: Array
    ) -> tuple[Array, ...]:
        (momentum,) = state
        gradient = self.norm_coefficient * x + gradient
        momentum = self.alpha * momentum + xp.where(count > 0, self.beta, 1) * gradient
        nesterov = self.mode == "nesterov"
        direction = gradient + self.alpha * momentum if nesterov else momentum
        return x - rate * direction, momentum


@dataclass(frozen=True, slots=True)
class Adam(Optimizer):
    """Steps by running means of gradients and squared gradients, ONNX Adam-1."""

    states: ClassVar[int] = 2
    alpha: float = 0.9
    beta: float = 0.999
    epsilon: float = 1e-6
    norm_coefficient: float = 0.0
    norm_coefficient_post: float = 0.0

    def step(
        self, xp: ArrayModule, rate: Array, count: Array, x: Array, gradient: Array, *state: Array
    ) -> tuple[Array, ...]:
        mean, square = state
        gradient = self.norm_coefficient * x + gradient
        mean = self.alpha * mean + (1 - self.alpha) * gradient
        square = self.beta * square + (1 - self.beta) * gradient * gradient
        if bool(count > 0):
            rate = rate * xp.sqrt(1 - self.beta**count) / (1 - self.alpha**count)
        x = x - rate * mean / (xp.sqrt(square) + self.epsilon)
        return (1 - self.norm_coefficient_post) * x, mean, square


OPERATORS: tuple[type[Op], ...] = (Adagrad, Adam, Momentum)
