"""Cost coefficients: what a scheme's work costs on a machine, measured here or shipped."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from mnnpy.runtime.contracts import Coefficients


def load_coefficients(backend: str) -> dict[str, Coefficients]:
    """Coefficients fitted on this machine, else the shipped ones, by scheme name."""
    measured = coefficients_path(backend)
    if measured.exists():
        return _decode(json.loads(measured.read_text()))
    shipped = files("mnnpy.configs") / "coefficients" / f"{backend}.json"
    return _decode(json.loads(shipped.read_text()))


def save_coefficients(backend: str, coefficients: Mapping[str, Coefficients]) -> Path:
    """Keep what was fitted on this machine; written whole or not at all."""
    path = coefficients_path(backend)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(entry) for name, entry in coefficients.items()}, indent=1)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
    return path


def coefficients_path(backend: str) -> Path:
    """Where this machine's coefficients are kept, in the user's cache directory."""
    return cache_directory() / "coefficients" / f"{platform.node() or 'machine'}-{backend}.json"


def cache_directory() -> Path:
    """The user's own cache directory for mnnpy (XDG base directory specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mnnpy"


def _decode(entries: Mapping[str, Mapping[str, float]]) -> dict[str, Coefficients]:
    return {name: Coefficients(**entry) for name, entry in entries.items()}
