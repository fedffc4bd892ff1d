"""Arrays from files and to files: ``.npy``, ``.npz`` and ONNX's ``.pb``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np

from mnnpy.data_sets import read_tensor
from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.types import Array


def read_arrays(path: Path) -> dict[str | None, Any]:
    """What a file holds by name; under None where the file does not name it.

    Raises
    ------
    FeedError
        Where the file is of no known kind or damaged.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".pb": read_tensor}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FeedError(f"{path}: inputs are read from {', '.join(readers)} files")
    found = reader(path)
    return found if isinstance(found, dict) else {None: found}


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an ``.npz`` whole or not at all; entries carry the values' own names.

    Raises
    ------
    FeedError
        Where a value is no array.
    """
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype == object:
            raise FeedError(f"{path}: output {name!r} is no numeric array: .npz cannot hold it")

    def write(file: BinaryIO) -> None:
        # np.savez takes names as keyword arguments, of which some are its own.
        with ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    write_atomically(path, write)


def _read_npy(path: Path) -> Array:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FeedError(f"{path}: no valid .npy file: {error}") from error


def _read_npz(path: Path) -> dict[str | None, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise FeedError(f"{path}: no valid .npz file: {error}") from error
