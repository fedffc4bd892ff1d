"""ONNX's own test suite as a table of cases, and one way to run a case."""

from __future__ import annotations

import unittest
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from onnx.backend.test import BackendTest
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from tests.conformance.backend import NotImplementedCaseError, suite_backend

Outcome = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Result:
    """What a case came to, with the reason where it did not pass."""

    outcome: Outcome
    reason: str = ""


@cache
def cases(backend: str) -> dict[str, unittest.TestCase]:
    """Every CPU case by name: node, simple, model and PyTorch cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = BackendTest(suite_backend(backend), __name__)
        groups = suite.test_cases.values()
        return {
            name: group(name)
            for group in groups
            for name in unittest.defaultTestLoader.getTestCaseNames(group)
            if name.endswith("_cpu")
        }


def load_node_cases() -> list[TestCase]:
    """The suite's node cases with their models and data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(load_model_tests(kind="node"))


def cases_file(counts: Path) -> Path:
    """Beside the file of counts, the one that tells the outcome of every case."""
    return counts.with_name(f"{counts.stem}-cases{counts.suffix}")


def run_case(case: unittest.TestCase) -> Result:
    """Run one case; a model with an operator that mnnpy lacks is a skip, never a pass."""
    function = getattr(case, case._testMethodName)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.setUp()
            function()
    except NotImplementedCaseError as error:
        return Result("skip", str(error))
    except unittest.SkipTest as skip:
        return Result("skip", str(skip))
    except Exception as error:
        return Result("fail", f"{type(error).__name__}: {error}")
    return Result("pass")


@cache
def expected_failures() -> dict[str, str]:
    """Case name -> reason, from ``expected_failures.txt``."""
    path = Path(__file__).with_name("expected_failures.txt")
    return dict(_entries(path.read_text().splitlines()))


def _entries(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            yield name, reason.strip()
