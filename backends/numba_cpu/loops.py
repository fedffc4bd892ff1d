"""Compiled loops. Numba caches them on disk, so they are compiled once per machine."""

from __future__ import annotations

from math import exp, tanh
from typing import Any

from numba import njit, prange

from mnnpy.runtime.graph.types import Array


@njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")
def depthwise(x: Array, w: Array, y: Array, strides: Any, dilations: Any, pads: Any) -> None:
    """y[i, c] = sum over taps of w[c, tap] * x[i, c, shifted]; x (n, c, h, w), w (c, r, s)."""
    images, channels, height, width = x.shape
    rows, columns = y.shape[2], y.shape[3]
    for plane in prange(images * channels):
        image, channel = plane // channels, plane % channels
        y[image, channel] = 0
        for r in range(w.shape[1]):
            for s in range(w.shape[2]):
                factor = w[channel, r, s]
                left = s * dilations[1] - pads[1]
                first = max(0, -(left // strides[1]))
                last = min(columns, (width - 1 - left) // strides[1] + 1)
                for p in range(rows):
                    row = p * strides[0] + r * dilations[0] - pads[0]
                    if 0 <= row < height:
                        for q in range(first, last):
                            y[image, channel, p, q] += (
                                factor * x[image, channel, row, q * strides[1] + left]
                            )


@njit(cache=True, parallel=True, error_model="numpy")
def relu(x: Array, y: Array) -> None:
    for i in prange(x.size):
        value = x[i]
        y[i] = value if value > 0 or value != value else x.dtype.type(0)


@njit(cache=True, parallel=True, error_model="numpy")
def clip(x: Array, lower: Any, upper: Any, y: Array) -> None:
    for i in prange(x.size):
        value = x[i]
        y[i] = lower if value < lower else upper if value > upper else value


@njit(cache=True, parallel=True, error_model="numpy")
def sigmoid(x: Array, y: Array) -> None:
    for i in prange(x.size):
        y[i] = 1 / (1 + exp(-x[i]))


@njit(cache=True, parallel=True, error_model="numpy")
def hyperbolic_tangent(x: Array, y: Array) -> None:
    for i in prange(x.size):
        y[i] = tanh(x[i])


@njit(cache=True, parallel=True, error_model="numpy")
def hard_swish(x: Array, y: Array) -> None:
    for i in prange(x.size):
        gate = min(max(x[i] * (1.0 / 6.0) + 0.5, 0.0), 1.0)
        y[i] = x[i] * gate


@njit(cache=True, parallel=True, error_model="numpy")
def add(a: Array, b: Array, y: Array) -> None:
    for i in prange(y.size):
        y[i] = a[i] + b[i]


@njit(cache=True, parallel=True, error_model="numpy")
def subtract(a: Array, b: Array, y: Array) -> None:
    for i in prange(y.size):
        y[i] = a[i] - b[i]


@njit(cache=True, parallel=True, error_model="numpy")
def multiply(a: Array, b: Array, y: Array) -> None:
    for i in prange(y.size):
        y[i] = a[i] * b[i]


@njit(cache=True, parallel=True, error_model="numpy")
def divide(a: Array, b: Array, y: Array) -> None:
    for i in prange(y.size):
        y[i] = a[i] / b[i]
