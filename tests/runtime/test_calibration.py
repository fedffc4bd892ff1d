"""Calibration: coefficients from times, for every backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mnnpy.runtime.calibration import calibrate, fit
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.devices import Coefficients, Work
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.registry import backend_names, load_backend, why_unusable


@pytest.mark.parametrize(
    "true",
    [
        Coefficients(1e-11, 2e-10, 3e-6),
        Coefficients(1e-11, 0.0, 3e-6),
        Coefficients(0.0, 2e-10, 0.0),
    ],
)
def test_coefficients_are_found_again(true: Coefficients) -> None:
    works = [Work(10**m, 10**b, n) for m in (3, 6, 9) for b in (3, 5, 7) for n in (1, 4)]
    found = fit([(work, true.seconds(work)) for work in works])
    for work in works:
        assert found.seconds(work) == pytest.approx(true.seconds(work), rel=1e-6)


@pytest.mark.parametrize("name", backend_names())
def test_every_backend_gets_what_plans_ask_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a backend has no kernel for all of the suite."""
    if (reason := why_unusable(name)) is not None:
        pytest.skip(reason)

    def small() -> Iterator[Task]:
        x = Value(TensorType(FLOAT32, (4, 16)))
        yield Task(Relu(), (x,), (x.tensor,))

    monkeypatch.setattr("mnnpy.runtime.calibration.suite", small)
    seen: list[str] = []
    backend = load_backend(name)
    fitted = calibrate(backend, lambda scheme, done, total: seen.append(scheme))
    assert {"*", "view", *seen} <= fitted.keys()
    assert backend.describe().coefficients.keys() <= fitted.keys()
