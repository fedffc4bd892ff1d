"""Cost coefficients: what a scheme's work costs on a machine, measured here or shipped."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from mnnpy.runtime.devices import Coefficients
from mnnpy.runtime.errors import ConfigError
from mnnpy.runtime.files import write_atomically


def load_coefficients(backend: str) -> dict[str, Coefficients]:
    """Coefficients fitted on this machine, else the shipped ones, by scheme name.

    Raises
    ------
    ConfigError
        Where this machine's file is damaged.
    """
    measured = coefficients_path(backend)
    if not measured.exists():
        shipped = files("mnnpy.configs") / "coefficients" / f"{backend}.json"
        return _decode(shipped.read_text())
    try:
        return _decode(measured.read_text())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{measured}: no coefficients as 'mnnpy calibrate' writes them ({error}): "
            "delete the file, and calibrate again"
        ) from error


def save_coefficients(backend: str, coefficients: Mapping[str, Coefficients]) -> Path:
    """Keep what was fitted on this machine; written whole or not at all."""
    path = coefficients_path(backend)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: asdict(entry) for name, entry in coefficients.items()}, indent=1)
    write_atomically(path, text.encode())
    return path


def coefficients_path(backend: str) -> Path:
    """Where this machine's coefficients are kept, in the user's cache directory."""
    return cache_directory() / "coefficients" / f"{platform.node() or 'machine'}-{backend}.json"


def cache_directory() -> Path:
    """The user's own cache directory for mnnpy (XDG base directory specification)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "mnnpy"


def _decode(text: str) -> dict[str, Coefficients]:
    return {name: Coefficients(**entry) for name, entry in json.loads(text).items()}
