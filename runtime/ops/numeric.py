"""Numeric functions that the references of several families share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from mnnpy.runtime.graph.types import DTYPES, FLOAT32, Array, ArrayModule, DType
from mnnpy.runtime.ops.shape_math import reduced_shape

_NARROW_FLOATS = frozenset(
    dtype for name, dtype in DTYPES.items() if "float" in name and dtype.itemsize < 4
)


def wide(dtype: DType) -> DType:
    """The type to compute in: float32 for narrower floats, else the type itself."""
    return FLOAT32 if dtype in _NARROW_FLOATS else dtype


def widen(x: Array) -> Array:
    """The array in ``wide`` of its type."""
    return x.astype(wide(x.dtype), copy=False)


def on_host(x: Array) -> Array:
    """The array in the host's memory: what CuPy holds is copied, NumPy's stays."""
    return x.get() if hasattr(x, "get") else x


def lowest(dtype: DType) -> float:
    """What no element is below: the neutral element of the maximum."""
    return _limits(dtype)[0]


def highest(dtype: DType) -> float:
    """What no element is above: the neutral element of the minimum."""
    return _limits(dtype)[1]


def _limits(dtype: DType) -> tuple[float, float]:
    if dtype.kind == "b":
        return False, True
    if dtype.kind == "f" or dtype in _NARROW_FLOATS:
        return -np.inf, np.inf
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def largest(xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
    """Maximum over ``axes``, kept with size one; ``lowest`` where there are no elements."""
    if 0 in (x.shape[axis] for axis in axes):
        return xp.full(reduced_shape(x.shape, axes, True), lowest(x.dtype), dtype=x.dtype)
    return xp.max(x, axis=axes, keepdims=True)


def smallest(xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
    """Minimum over ``axes``, kept with size one; ``highest`` where there are no elements."""
    if 0 in (x.shape[axis] for axis in axes):
        return xp.full(reduced_shape(x.shape, axes, True), highest(x.dtype), dtype=x.dtype)
    return xp.min(x, axis=axes, keepdims=True)


def sigmoid(xp: ArrayModule, x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    decay = xp.exp(-xp.absolute(x))
    return xp.where(x >= 0, 1 / (1 + decay), decay / (1 + decay))


_SHORT_SUM = 16
"""Terms that may be summed in a type of 8 bits."""


def softmax(xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
    """exp(x) scaled to the sum one over ``axes``.

    Each step is rounded to x's type, as ONNX's cases expect.
    """
    powers = xp.exp(x - largest(xp, x, axes))
    # So is each step of a short sum. A long one needs more: in bfloat16 it stops growing at 256.
    short = prod(x.shape[axis] for axis in axes) <= _SHORT_SUM
    dtype = x.dtype if short else wide(x.dtype)
    total = xp.sum(powers, axis=axes, keepdims=True, dtype=dtype)
    return powers / total.astype(x.dtype)


def log_softmax(xp: ArrayModule, x: Array, axes: tuple[int, ...]) -> Array:
    """log(softmax(x)), without underflow."""
    shifted = x - largest(xp, x, axes)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axes, keepdims=True))


# Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969), 631:
# numerator and denominator, highest power first, of erf(x)/x in x^2 up to 0.46875, of
# exp(x^2) erfc(x) in x up to 4, and of x^2 (1/sqrt(pi) - x exp(x^2) erfc(x)) in 1/x^2 beyond.
_NEAR = (
    (0.185777706184603153, 3.16112374387056560, 113.864154151050156, 377.485237685302021,
     3209.37758913846947),
    (1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295,
     298.635138197400131, 881.952221241769090, 1712.04761263407058, 2051.07837782607147,
     1230.33935479799725),
    (1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019,
     3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942),
)  # fmt: skip
_FAR = (
    (0.0163153871373020978, 0.305326634961232344, 0.360344899949804439, 0.125781726111229246,
     0.0160837851487422766, 0.000658749161529837803),
    (1.0, 2.56852019228982242, 1.87295284992346725, 0.527905102951428412, 0.0605183413124413191,
     0.00233520497626869185),
)  # fmt: skip


def erf(xp: ArrayModule, x: Array) -> Array:
    """The error function in float64, to about one unit in the last place."""
    x = x.astype(np.float64)
    size = xp.absolute(x)
    square = xp.minimum(size, 0.46875) ** 2
    near = x * _rational(square, *_NEAR)
    middle = _rational(xp.clip(size, 0.46875, 4), *_MIDDLE)
    inverse = 1 / xp.clip(size, 4, 6) ** 2
    far = (np.pi**-0.5 - inverse * _rational(inverse, *_FAR)) * xp.sqrt(inverse)
    # Beyond 6, erf is 1 in float64; there exp(-36) vanishes beside 1.
    decay = xp.exp(-(xp.clip(size, 0, 6) ** 2)) * xp.where(size <= 4, middle, far)
    return xp.where(size <= 0.46875, near, xp.sign(x) * (1 - decay))


def _rational(x: Array, numerator: Sequence[float], denominator: Sequence[float]) -> Array:
    """Quotient of two polynomials, coefficients from the highest power down."""
    above, below = x * 0, x * 0
    for a, b in zip(numerator, denominator, strict=True):
        above, below = above * x + a, below * x + b
    return above / below
