"""The clients, where ``python -m tests.clients`` has made their environment."""

from __future__ import annotations

import pytest

from tests.clients.running import FOLDER, compared, copy_changed, difference, python_of
from tests.clients.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def _changed() -> None:
    if not python_of(FOLDER / "venv").exists():
        pytest.skip("the clients are not installed: python -m tests.clients")
    copy_changed()


@pytest.mark.slow
@pytest.mark.usefixtures("_changed")
@pytest.mark.parametrize("name", SCENARIOS)
def test_client_finds_the_same(name: str) -> None:
    row = compared(name)
    if row.verdict.startswith("skipped"):
        pytest.skip(row.verdict)
    assert not row.failed, row


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([["cat", 1.0]], [["cat", 1.5]], 0.5 / 1.5),
        ({"box": [1, 2], "score": 0.25}, {"box": [1, 2], "score": 0.5}, 0.25),
        (["cat"], ["dog"], None),
        ([1, 2], [1, 3], None),
        ([1], [1, 2], None),
        ({"a": 1}, {"b": 1}, None),
        ([1], [1.0], None),
        ([], [], 0.0),
    ],
)
def test_difference(a: object, b: object, expected: float | None) -> None:
    assert difference(a, b) == expected
