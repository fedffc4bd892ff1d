"""Checking a model against ONNX test data: folders with ``input_0.pb`` and ``output_0.pb``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer

from mnnpy import Session
from mnnpy.cli.progress import progress_bar
from mnnpy.cli.tensor_files import read_tensor
from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("set", "output", "difference", "relative", "verdict")


def check_folder(session: Session, folder: Path, tolerance: float) -> bool:
    """Run every test data set of a folder, print a table, and say whether all outputs fit.

    Raises
    ------
    FeedError
        Where the folder holds no test data, or its inputs do not fit the model.
    """
    sets = _data_sets(folder)
    rows: list[list[str]] = []
    with progress_bar("checking") as report:
        for index, data_set in enumerate(sets):
            report(index / len(sets), data_set.name)
            rows.extend(_check(session, data_set, tolerance))
    typer.echo(text_table(_HEADINGS, rows, ("difference", "relative")))
    failed = sum(row[-1] != "ok" for row in rows)
    typer.echo(f"\n{len(rows) - failed} of {len(rows)} outputs fit within {tolerance:g}")
    return not failed


def relative_error(expected: Any, found: Any) -> tuple[float, float]:
    """(max|difference|, the same over max|expected|); infinite where they cannot be compared.

    Equal infinities and NaN at the same places count as equal.
    """
    if isinstance(expected, list) or isinstance(found, list):
        if not isinstance(expected, list) or not isinstance(found, list):
            return np.inf, np.inf
        if len(expected) != len(found):
            return np.inf, np.inf
        pairs = [relative_error(e, f) for e, f in zip(expected, found, strict=True)]
        return max((d for d, _ in pairs), default=0.0), max((r for _, r in pairs), default=0.0)
    if expected is None or found is None:
        return (0.0, 0.0) if expected is found else (np.inf, np.inf)
    expected, found = np.asarray(expected), np.asarray(found)
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return np.inf, np.inf
    if expected.dtype.kind == "O":
        return (0.0, 0.0) if (expected == found).all() else (np.inf, np.inf)
    return _numeric_error(expected.astype(np.complex128), found.astype(np.complex128))


def _numeric_error(expected: Any, found: Any) -> tuple[float, float]:
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    if same.all():
        return 0.0, 0.0
    difference = float(np.abs(expected[~same] - found[~same]).max())
    finite = expected[np.isfinite(expected)]
    largest = float(np.abs(finite).max(initial=0.0))
    if np.isnan(difference) or not largest:
        return difference, np.inf
    return difference, difference / largest


def _data_sets(folder: Path) -> list[Path]:
    if any(folder.glob("output_*.pb")):
        return [folder]
    if not folder.is_dir():
        raise FeedError(f"{folder}: no folder of ONNX test data")
    sets = sorted(path for path in folder.glob("test_data_set_*") if path.is_dir())
    if not sets:
        raise FeedError(f"{folder}: holds neither output_*.pb files nor test_data_set_* folders")
    return sets


def _check(session: Session, data_set: Path, tolerance: float) -> Iterator[list[str]]:
    graph = session.graph
    feeds = {
        name: read_tensor(path, graph.inputs[name])
        for name, path in _files(data_set, "input", list(graph.inputs))
    }
    types = infer_values(graph)
    found = session.run(feeds)
    for name, path in _files(data_set, "output", list(graph.outputs)):
        expected = read_tensor(path, types[name].type)
        difference, relative = relative_error(expected, found[name])
        fits = relative <= tolerance
        verdict = "ok" if fits else _verdict(expected, found[name], relative)
        yield [data_set.name, name, f"{difference:.2e}", f"{relative:.2e}", verdict]


def _files(data_set: Path, role: str, names: list[str]) -> Iterator[tuple[str, Path]]:
    """(value name, file) of ``role_0.pb``, ``role_1.pb``, ... in the model's order."""
    count = len(list(data_set.glob(f"{role}_*.pb")))
    if count > len(names):
        raise FeedError(f"{data_set}: {count} {role} files for the model's {len(names)} {role}s")
    for index in range(count):
        yield names[index], data_set / f"{role}_{index}.pb"


def _verdict(expected: Any, found: Any, relative: float) -> str:
    if np.isfinite(relative):
        return "differs"
    wanted, got = (_described(value) for value in (expected, found))
    return f"expected {wanted}, got {got}" if wanted != got else "differs"


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    return type(value).__name__
