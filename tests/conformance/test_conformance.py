"""ONNX's own suite on every CPU backend, strict in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.backend import suite_backend
from tests.conformance.suite import cases, expected_failures, load_node_cases, run_case

BACKENDS = ("numpy", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_architectures(backend: str) -> None:
    """The nine real architectures that the onnx package bundles."""
    names = [n for n in cases(backend) if _is_architecture(n)]
    assert len(names) == 9
    failed = {n: r.reason for n in names if (r := run_case(cases(backend)[n])).outcome != "pass"}
    assert not failed


@pytest.mark.parametrize("backend", BACKENDS)
def test_cases(backend: str) -> None:
    """Every other case passes, or is on the list of expected failures with its reason."""
    known = expected_failures()
    unexpected, passed_after_all = {}, []
    for name, case in cases(backend).items():
        if _is_architecture(name):
            continue
        result = run_case(case)
        if result.outcome != "pass" and name not in known:
            unexpected[name] = f"{result.outcome}: {result.reason}"
        if result.outcome == "pass" and not known.get(name, "random:").startswith("random:"):
            passed_after_all.append(name)
    assert not unexpected
    assert not passed_after_all, "take these off expected_failures.txt"
    assert all(known.values()), "every expected failure needs a reason"


def test_sequence_with_scalar_element() -> None:
    """What ``test_loop16_seq_none`` asks, compared here because the suite cannot."""
    (case,) = [c for c in load_node_cases() if c.name == "test_loop16_seq_none"]
    for inputs, outputs in case.data_sets:
        prepared = suite_backend("numpy").prepare(case.model)
        (found,) = prepared.run(inputs)
        (wanted,) = outputs
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def _is_architecture(name: str) -> bool:
    return type(cases("numpy")[name]).__name__ == "OnnxBackendRealModelTest"
