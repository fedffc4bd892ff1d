"""A slice of ``python -m tests.fuzz``: the outcome is a result or a typed error, soon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.fuzz.cases import Case, Kind, make_case, read_seeds, write_seeds
from tests.fuzz.running import Attempt, Limits, run_cases

CASES = 100
KINDS: Sequence[Kind] = get_args(Kind)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "seeds"
    write_seeds(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_result_or_a_typed_error(kind: Kind, seeds: Path) -> None:
    report = run_cases(seeds, kind, range(CASES))
    assert not report.bad
    assert sum(report.counts.values()) == CASES
    assert report.counts["result"]
    assert any(label.startswith("typed") for label in report.counts)
    assert report.nbytes < Limits().nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_a_case(kind: Kind, seeds: Path) -> None:
    known = read_seeds(seeds)
    cases = [make_case(known, kind, number) for number in (1, 1, 2)]
    assert cases[0].model == cases[1].model
    assert (cases[0].model, repr(cases[0].feeds)) != (cases[2].model, repr(cases[2].feeds))


def die(case: Case) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def sleep(case: Case) -> str:
    time.sleep(60)
    return ""


def work(case: Case) -> str:
    start = time.process_time()
    while time.process_time() < start + 0.2:
        pass
    return ""


def fail(case: Case) -> str:
    raise KeyError("no error of ours")


def fill(case: Case) -> str:
    return str(np.ones(2**27).sum())


PLANTED: dict[Attempt, str] = {sleep: "hang", work: "slow", fail: "untyped", fill: "untyped"}
STRICT = Limits(seconds=0.1, patience=2.0, nbytes=1 << 28)


@pytest.mark.parametrize("attempt", PLANTED)
def test_what_must_not_be_is_seen(attempt: Attempt, seeds: Path) -> None:
    report = run_cases(seeds, "feeds", [7], attempt, STRICT)
    assert report.counts == {PLANTED[attempt]: 1}
    assert list(report.bad) == [7]


def test_a_crash_ends_one_case_only(seeds: Path) -> None:
    report = run_cases(seeds, "feeds", range(2), die, STRICT)
    assert report.counts == {"crash": 2}
