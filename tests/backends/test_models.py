"""Whole networks on every backend against NumPy's and against the references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mnnpy
from benchmarks.models import MODELS, build, input_shape

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.mark.parametrize(
    "backend", ["numpy", "numba", pytest.param("cuda", marks=pytest.mark.cuda)]
)
def test_digits(backend: str) -> None:
    """At least 97 % of the held-out digits are right."""
    data = np.load(DIGITS / "heldout.npz")
    images = data["images"][:, None].astype(np.float32) / 16
    with mnnpy.Session(DIGITS / "digits.onnx", backend=backend) as session:
        (found,) = session.run(images).values()
    assert np.mean(found.argmax(axis=1) == data["labels"]) >= 0.97


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "backend",
    [pytest.param("numba", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.cuda)],
)
def test_benchmark_models(backend: str, name: str) -> None:
    """Outputs within 1e-3 of NumPy's, relative to the largest."""
    model = build(name).SerializeToString()
    shape = input_shape(name, 1, 128)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with mnnpy.Session(model, backend="numpy") as session:
        (wanted,) = session.run(x).values()
    with mnnpy.Session(model, backend=backend) as session:
        (found,) = session.run(x).values()
    assert np.max(np.abs(found - wanted)) <= 1e-3 * np.max(np.abs(wanted))
