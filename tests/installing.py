"""Backends for tests, found as those of an installed package are."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from mnnpy.runtime import registry


@contextmanager
def installed_backends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, backends: Mapping[str, str]
) -> Iterator[None]:
    """A package ``mnnpy-toy`` in a folder, as an installer would leave it.

    Parameters
    ----------
    backends : name -> ``module:class``.
    """
    metadata = folder / "mnnpy_toy-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mnnpy-toy\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in backends.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[mnnpy.backends]", *lines]))
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    registry.load_backend.cache_clear()
    yield
    registry.load_backend.cache_clear()
