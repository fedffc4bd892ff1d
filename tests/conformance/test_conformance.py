"""ONNX's own suite on every CPU backend, strict in both directions."""

from __future__ import annotations

import pytest

from tests.conformance.suite import cases, expected_failures, run_case

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
        if result.outcome == "pass" and name in known:
            passed_after_all.append(name)
    assert not unexpected
    assert not passed_after_all, "take these off expected_failures.txt"
    assert all(known.values()), "every expected failure needs a reason"


def _is_architecture(name: str) -> bool:
    return type(cases("numpy")[name]).__name__ == "OnnxBackendRealModelTest"
