"""Errors of the vector functions in units in the last place, at every exponent and in between."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mnnpy.backends.numba_cpu import vector_math
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.runtime.ops.numeric import erf

Array = np.ndarray[Any, Any]

_STRIDE = 40_009
"""Distance of the tested floats by their bits: every exponent is met 400 times."""

_PRECISE = 2.0**-119
"""Results from which on the stated errors hold; below, products lose bits to denormal factors."""


def _sigmoid(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, decay) / (1 + decay)


def _gelu(x: Array) -> Array:
    tail = np.vectorize(math.erfc)(np.abs(x) * math.sqrt(0.5)) / 2
    return x * np.where(x > 0, 1 - tail, tail)


def _gelu_by_tanh(x: Array) -> Array:
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _mish(x: Array) -> Array:
    e = np.exp(np.minimum(x, 100))
    return x * (e * (e + 2) / (e * (e + 2) + 2))


def _expm1_negative(f: Function, x: Value) -> Value:
    return vector_math.expm1_negative(f, f.smaller(x, f.constant(0.0)))


FUNCTIONS: dict[str, tuple[Callable[..., Value], Callable[[Array], Array], float]] = {
    "exp": (vector_math.exp, np.exp, 1.0),
    "expm1": (_expm1_negative, lambda x: np.expm1(np.minimum(x, 0)), 1.0),
    "log": (vector_math.log, np.log, 0.9),
    "sigmoid": (vector_math.sigmoid, _sigmoid, 2.3),
    "tanh": (vector_math.tanh, np.tanh, 2.6),
    "erf": (vector_math.erf, lambda x: erf(np, x), 2.4),
    "gelu": (vector_math.gelu, _gelu, 5.4),
    "gelu by tanh": (vector_math.gelu_by_tanh, _gelu_by_tanh, 3.4),
    "softplus": (vector_math.softplus, _softplus, 3.5),
    "mish": (vector_math.mish, _mish, 4.0),
    "sin": (vector_math.sin, np.sin, 2.1),
    "cos": (vector_math.cos, np.cos, 2.1),
}
"""How it is generated, the same in float64, and the most units in the last place it is off by."""


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_over_odd_shapes_of_floats(name: str, lanes: int) -> None:
    write, exact, most = FUNCTIONS[name]
    bits = np.arange(0, 1 << 32, _STRIDE, dtype=np.uint64).astype(np.uint32)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], "f4")
    usual = np.linspace(-12, 12, 40_001, dtype=np.float32)
    x = np.concatenate([bits.view(np.float32), special, usual])
    with np.errstate(all="ignore"):
        wanted = exact(x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    found = computed(write, x, lanes)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[np.isinf(rounded)], rounded[np.isinf(rounded)])
    zero = wanted == 0
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(wanted[zero]))
    with np.errstate(all="ignore"):
        off = np.abs(found - wanted) / np.spacing(np.abs(rounded))
    precise = np.isfinite(rounded) & (np.abs(wanted) >= _PRECISE)
    assert off[precise].max() <= most, f"at {x[precise][off[precise].argmax()]!r}"
    np.testing.assert_allclose(found, rounded, rtol=1e-6, atol=1e-40)


def computed(write: Callable[..., Value], x: Array, lanes: int) -> Array:
    """The function of every element, by vectors of ``lanes``."""
    module = Module(lanes)
    f = Function(module, "run", [("ptr", "x"), ("ptr", "y"), ("i64", "vectors")])

    def vector(index: Value) -> None:
        place = f.mul(index, lanes)
        f.store_vector(write(f, f.load_vector(f.at("%x", place))), f.at("%y", place))

    f.loop("%vectors", vector)
    f.finish()
    given = np.resize(x, -(-len(x) // lanes) * lanes)
    found = np.empty_like(given)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    run = kind(host_jit().address(str(module), "run"))
    run(given.ctypes.data, found.ctypes.data, len(given) // lanes)
    return found[: len(x)]
