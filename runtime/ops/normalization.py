"""Normalizations: batch, instance, layer, group, root mean square, local response, Lp.

Floats narrower than 32 bits are computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import DTYPES, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import SameType, require_same_dtype
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import normalize_axes, normalize_axis, require_broadcast_to


@dataclass(frozen=True, slots=True)
class BatchNormalization(Op):
    """(x - mean) / sqrt(var + epsilon) * scale + bias per channel, ONNX BatchNormalization-15.

    x : (n, c, *spatial); scale, bias, mean, var : (c,), or (c, *spatial) where every position has
    statistics of its own (opset 7 with ``spatial`` 0).

    With ``training_mode``, the batch's own statistics are used, and the outputs are y, running
    mean, running variance and the batch's mean and variance.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    training_mode: int = 0

    def infer(
        self, x: Value, scale: Value, bias: Value, mean: Value, var: Value
    ) -> tuple[Type, ...]:
        require_same_dtype(scale, bias)
        require_same_dtype(mean, var)
        channels = x.shape[1] if x.rank > 1 else 1
        for value in (scale, bias, mean, var):
            if value.rank < 1 or differ(value.shape[0], channels):
                raise ShapeError(f"parameters of shape {value.shape} for {channels} channels")
        return (x.tensor, *(mean.tensor,) * 4) if self.training_mode else (x.tensor,)

    def reference(
        self, xp: ArrayModule, x: Array, scale: Array, bias: Array, mean: Array, var: Array
    ) -> tuple[Array, ...]:
        if not self.training_mode:
            return (self._normalized(xp, x, scale, bias, mean, var),)
        axes = tuple(axis for axis in range(x.ndim) if axis == 0 or axis > scale.ndim)
        batch_mean = xp.mean(widen(x), axis=axes).reshape(mean.shape)
        batch_var = xp.var(widen(x), axis=axes).reshape(var.shape)
        y = self._normalized(xp, x, scale, bias, batch_mean, batch_var)
        new, old = 1 - self.momentum, self.momentum
        running = (widen(mean) * old + batch_mean * new, widen(var) * old + batch_var * new)
        return (y, *(array.astype(mean.dtype) for array in (*running, batch_mean, batch_var)))

    def _normalized(
        self, xp: ArrayModule, x: Array, scale: Array, bias: Array, mean: Array, var: Array
    ) -> Array:
        trailing = (1,) * max(x.ndim - 1 - scale.ndim, 0)
        scale, bias, mean, var = (
            widen(array.reshape(array.shape + trailing)) for array in (scale, bias, mean, var)
        )
        y = (widen(x) - mean) / xp.sqrt(var + self.epsilon) * scale + bias
        return y.astype(x.dtype)


@dataclass(frozen=True, slots=True)
class InstanceNormalization(Op):
    """Zero mean and unit variance per instance and channel, ONNX InstanceNormalization-22.

    x : (n, c, *spatial); scale, bias : (c,).
    """

    epsilon: float = 1e-5

    def infer(self, x: Value, scale: Value, bias: Value) -> tuple[Type, ...]:
        require_same_dtype(x, scale, bias)
        _require_channels(_channels(x), scale, bias)
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array, scale: Array, bias: Array) -> tuple[Array, ...]:
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        normalized, _, _ = _standardized(xp, widen(x), tuple(range(2, x.ndim)), self.epsilon)
        y = normalized * widen(scale.reshape(per_channel)) + widen(bias.reshape(per_channel))
        return (y.astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class GroupNormalization(Op):
    """Zero mean and unit variance per instance and group, ONNX GroupNormalization-21.

    x : (n, c, *spatial); scale, bias : (c,), or (num_groups,) as in opset 18.
    """

    num_groups: int
    epsilon: float = 1e-5
    stash_type: str = "float32"

    def infer(self, x: Value, scale: Value, bias: Value) -> tuple[Type, ...]:
        require_same_dtype(x, scale, bias)
        channels = _channels(x)
        if differ(channels % self.num_groups, 0):
            raise ShapeError(f"{channels} channels do not form {self.num_groups} groups")
        grouped = scale.shape == (self.num_groups,)
        _require_channels(self.num_groups if grouped else channels, scale, bias)
        return (x.tensor,)

    def reference(self, xp: ArrayModule, x: Array, scale: Array, bias: Array) -> tuple[Array, ...]:
        groups = x.reshape(x.shape[0], self.num_groups, -1).astype(DTYPES[self.stash_type])
        normalized, _, _ = _standardized(xp, groups, (2,), self.epsilon)
        normalized = normalized.reshape(x.shape).astype(x.dtype)
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        scale, bias = (
            xp.repeat(array, x.shape[1] // array.size).reshape(per_channel)
            for array in (scale, bias)
        )
        return (normalized * scale + bias,)


@dataclass(frozen=True, slots=True)
class LayerNormalization(Op):
    """Zero mean and unit variance over the axes from ``axis`` on, ONNX LayerNormalization-17.

    x : (*outer, *inner); scale, bias : broadcast to x -> y, mean, 1 / standard deviation, the last
    two of ``stash_type`` and of shape (*outer, 1, ...).
    """

    axis: int = -1
    epsilon: float = 1e-5
    stash_type: str = "float32"

    def infer(self, x: Value, scale: Value, bias: Value | None = None) -> tuple[Type, ...]:
        for parameter in (scale, bias):
            if parameter is not None:
                require_same_dtype(x, parameter)
                require_broadcast_to(parameter.shape, x.shape)
        axis = normalize_axis(self.axis, x.rank)
        outer: Shape = x.shape[:axis] + (1,) * (x.rank - axis)
        statistic = TensorType(DTYPES[self.stash_type], outer)
        return (x.tensor, statistic, statistic)

    def reference(
        self, xp: ArrayModule, x: Array, scale: Array, bias: Array | None = None
    ) -> tuple[Array, ...]:
        axes = tuple(range(normalize_axis(self.axis, x.ndim), x.ndim))
        stashed = x.astype(DTYPES[self.stash_type])
        normalized, mean, inverse = _standardized(xp, stashed, axes, self.epsilon)
        y = normalized.astype(x.dtype) * scale
        return (y if bias is None else y + bias, mean, inverse)


@dataclass(frozen=True, slots=True)
class RMSNormalization(Op):
    """x over its root mean square from ``axis`` on, times scale, ONNX RMSNormalization-23."""

    axis: int = -1
    epsilon: float = 1e-5
    stash_type: str = "float32"

    def infer(self, x: Value, scale: Value) -> tuple[Type, ...]:
        require_broadcast_to(scale.shape, x.shape)
        return (TensorType(scale.dtype, x.shape),)

    def reference(self, xp: ArrayModule, x: Array, scale: Array) -> tuple[Array, ...]:
        axes = tuple(range(normalize_axis(self.axis, x.ndim), x.ndim))
        stashed = x.astype(DTYPES[self.stash_type])
        square = xp.mean(stashed * stashed, axis=axes, keepdims=True)
        normalized = stashed / xp.sqrt(square + xp.asarray(self.epsilon, dtype=square.dtype))
        return ((normalized.astype(x.dtype) * scale).astype(scale.dtype),)


@dataclass(frozen=True, slots=True)
class LRN(SameType):
    """x / (bias + alpha / size * sum of squares over ``size`` channels) ** beta, ONNX LRN-13."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        before = (self.size - 1) // 2
        padding = [(0, 0), (before, self.size - 1 - before)] + [(0, 0)] * (x.ndim - 2)
        squares = xp.pad(widen(x) ** 2, padding)
        channels = x.shape[1]
        total = sum(squares[:, i : i + channels] for i in range(self.size))
        return ((x / (self.bias + self.alpha / self.size * total) ** self.beta).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class MeanVarianceNormalization(SameType):
    """Zero mean and unit variance over ``axes``, ONNX MeanVarianceNormalization-13."""

    axes: tuple[int, ...] = (0, 2, 3)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        axes = normalize_axes(self.axes, x.ndim)
        centred = widen(x) - xp.mean(widen(x), axis=axes, keepdims=True)
        deviation = xp.sqrt(xp.mean(centred**2, axis=axes, keepdims=True))
        # ONNX's function body adds this to the standard deviation.
        return ((centred / (deviation + 1e-9)).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class LpNormalization(SameType):
    """x over its 1- or 2-norm along ``axis``; zero where the norm is, ONNX LpNormalization-22."""

    axis: int = -1
    p: int = 2

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        size = xp.absolute(widen(x)) ** self.p
        norm = xp.sum(size, axis=self.axis, keepdims=True) ** (1 / self.p)
        return ((x / xp.where(norm == 0, 1, norm)).astype(x.dtype),)


def _standardized(
    xp: ArrayModule, x: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array, Array]:
    """x with zero mean and unit variance over ``axes``; its mean; 1 / its standard deviation."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    var = xp.mean(centred * centred, axis=axes, keepdims=True)
    inverse = 1 / xp.sqrt(var + xp.asarray(epsilon, dtype=x.dtype))
    return centred * inverse, mean, inverse


def _channels(x: Value) -> Dim:
    if x.rank < 2:
        raise ShapeError(f"input of shape {x.shape}: need a batch and a channel axis")
    return x.shape[1]


def _require_channels(channels: Dim, *parameters: Value) -> None:
    for value in parameters:
        if value.rank != 1 or differ(value.shape[0], channels):
            raise ShapeError(f"parameter of shape {value.shape} for {channels} channels")


OPERATORS: tuple[type[Op], ...] = (
    *(BatchNormalization, InstanceNormalization, GroupNormalization, LayerNormalization),
    *(RMSNormalization, LRN, MeanVarianceNormalization, LpNormalization),
)
