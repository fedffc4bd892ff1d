"""Options of the test suite, and what is skipped without them."""

from __future__ import annotations

import pytest

from mnnpy.backends import host_memory
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.registry import load_backend


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arenas start as NaN, so that reading what nobody wrote shows."""
    allocate = host_memory.aligned_bytes

    def poisoned(nbytes: int) -> Array:
        memory = allocate(nbytes)
        memory[...] = 0xFF
        return memory

    monkeypatch.setattr(host_memory, "aligned_bytes", poisoned)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the full products of odd shapes")
    parser.addoption(
        "--ultraface", metavar="DIR", help="folder with the Ultraface model and photos"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "a full product of shapes: run with --slow"
    if any(item.get_closest_marker("cuda") for item in items):
        reason = load_backend("cuda").check()
        reasons |= {} if reason is None else {"cuda": reason}
    for mark, reason in reasons.items():
        for item in items:
            if item.get_closest_marker(mark) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
