"""The results as tables: for a terminal and for ``RESULTS.md``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnnpy.runtime.text_table import text_table

Row = Mapping[str, Any]

TOLERANCES = {"": 1e-4, "float16": 1e-2, "dynamic int8": 5e-2, "static QDQ": 5e-2}
"""Variant -> largest max|difference| / max|expected| that passes."""

LEAST_MOVE = 1e-3
"""A model whose outputs depend less than this on its inputs shows nothing."""

_HEADINGS = ("architecture", "exporter", "opset", "nodes", "shapes", "numpy", "numba")
_TIMES = ("ort create", "ort first", "convert", "numpy", "numba", "numba warm")


def outcome(row: Row) -> str:
    """passed, failed, or not exportable (where ONNX Runtime cannot run it either)."""
    if row.get("failures"):
        return "failed"
    if "reason" in row or not row["shapes"]:
        return "not exportable"
    if row["moves"] < LEAST_MOVE and row["domain"] != "bundled":  # Those have constant weights.
        return "failed"
    within = all(error <= row.get("tolerance", 1e-4) for error in row["errors"].values())
    return "passed" if within else "failed"


def as_text(rows: Sequence[Row]) -> str:
    exported = [row for row in rows if outcome(row) != "not exportable"]
    headings = (*_HEADINGS, *(f"{name} ms" for name in _TIMES), "outcome")
    cells = [[*_facts(row), *_times(row), outcome(row)] for row in exported]
    return text_table(headings, cells, headings[2:-1])


def as_markdown(rows: Sequence[Row]) -> str:
    """The committed report."""
    return "\n".join(_markdown(rows)) + "\n"


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Counts, and the worst error, per variant and exporter."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["domain"] != "bundled":
            groups.setdefault((row["variant"], row["exporter"]), []).append(row)
    for (variant, exporter), members in groups.items():
        counts = Counter(outcome(row) for row in members)
        errors = [e for row in members for e in row.get("errors", {}).values()]
        yield (
            f"{variant or 'float32'} by {exporter}: {counts['passed']} passed, "
            f"{counts['failed']} failed, {counts['not exportable']} not exportable; "
            f"worst error {max(errors, default=0.0):.1e} (allowed {TOLERANCES[variant]:.0e})"
        )


def _markdown(rows: Sequence[Row]) -> Iterator[str]:
    architectures = {row["name"] for row in rows if row["domain"] != "bundled"}
    passed = {
        row["name"]
        for row in rows
        if row["domain"] != "bundled" and not row["variant"] and outcome(row) == "passed"
    }
    yield "# Exported models\n"
    yield "Written by `python -m tests.exports`; see `tests/exports/requirements.txt`.\n"
    yield (
        f"{len(architectures)} architectures with seeded random weights were given to both of "
        f"torch's exporters; {len(passed)} of them pass by at least one. Errors are the largest "
        "max|difference| / max|expected| against ONNX Runtime over all outputs and shapes.\n"
    )
    yield from (f"* {line}" for line in summary(rows))
    yield (
        "\nQuantised models are compared with ONNX Runtime's unoptimised arithmetic. Times are "
        "milliseconds of one thread: creating ONNX Runtime's session and its first run; "
        "converting; and from a new session to the first output, for Numba without kernels on "
        "disk (cold) and with them (warm). Imports are not counted. The machine's load was "
        f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} cores; beyond that times grow.\n"
    )
    for title, members in _sections(rows):
        yield f"## {title}\n"
        yield from _table((*_HEADINGS, *_TIMES[:4], "numba cold", "numba warm", "outcome"), members)
    yield "## Not exportable\n"
    yield "What the exporter, the quantiser or ONNX Runtime says; not counted.\n"
    for row in rows:
        if outcome(row) == "not exportable":
            yield f"* {_name(row)}, {row['exporter']}: `{_reason(row)}`"
    failures = [row for row in rows if outcome(row) == "failed"]
    if failures:
        yield "\n## Failed\n"
    for row in failures:
        said = "; ".join(f"{k}: {v}" for k, v in row.get("failures", {}).items())
        yield f"* {_name(row)}, {row['exporter']}: {said or _errors(row)}"


def _sections(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    shown = [row for row in rows if outcome(row) != "not exportable"]
    for domain in dict.fromkeys(row["domain"] for row in shown):
        title = "Bundled with onnx" if domain == "bundled" else domain.capitalize()
        yield title, [row for row in shown if row["domain"] == domain]


def _table(headings: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join((*_facts(row), *_times(row), outcome(row)))} |"
    yield ""


def _facts(row: Row) -> list[str]:
    errors = row.get("errors", {})
    found = [f"{errors[b]:.1e}" if b in errors else "-" for b in ("numpy", "numba")]
    shapes = "; ".join(row.get("shapes", ()))
    counts = [str(row.get(key, "-")) for key in ("opset", "nodes")]
    return [_name(row), row["exporter"], *counts, shapes, *found]


def _times(row: Row) -> list[str]:
    seconds = row.get("seconds", {})
    return [f"{seconds[name] * 1e3:.0f}" if name in seconds else "-" for name in _TIMES]


def _name(row: Row) -> str:
    return f"{row['name']} ({row['variant']})" if row["variant"] else str(row["name"])


def _errors(row: Row) -> str:
    errors = ", ".join(f"{b} {e:.1e}" for b, e in row["errors"].items())
    return f"errors {errors}; outputs move by {row['moves']:.1e}"


def _reason(row: Row) -> str:
    reason = row.get("reason") or row["refused"][0]
    return " ".join(reason.split()).replace("`", "'")[:200]
