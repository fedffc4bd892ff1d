"""``python -m tests.exports``: export, run, compare with ONNX Runtime, and print the table.

Exported models stay under ``build/exports`` and are used again; ``--fresh`` exports anew. Results
of earlier runs stay in ``build/exports.json``, so that ``--only`` renews some of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.exports.architecture import EXPORTERS, Architecture
from tests.exports.bundled import bundled_models
from tests.exports.children import in_child
from tests.exports.exporting import export_all
from tests.exports.measuring import measure
from tests.exports.report import TOLERANCES, as_markdown, as_text, outcome, summary
from tests.exports.tables import ARCHITECTURES

FOLDER = Path("build/exports")
RESULTS = Path("build/exports.json")
REPORT = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names, or parts of names")
    parser.add_argument("--exporter", choices=EXPORTERS, help="both unless one is given")
    parser.add_argument("--backends", default="numpy,numba", help="comma-separated")
    parser.add_argument("--fresh", action="store_true", help="export again what was exported")
    options = parser.parse_args()
    exporters = [options.exporter] if options.exporter else list(EXPORTERS)
    chosen = [
        entry
        for name, entry in ARCHITECTURES.items()
        if not options.only or any(part in name for part in options.only)
    ]
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.only:
        results = {}
    for entry in chosen:
        _export(entry, exporters, options.fresh)
        for exporter in exporters:
            for variant in ("", *entry.variants):
                row = _row(entry, exporter, variant, options.backends)
                _keep(results, row)
    if not options.only:
        for name, model, folder in bundled_models(FOLDER):
            measured = _measured(model, folder, options.backends)
            _keep(
                results,
                {"name": name, "domain": "bundled", "exporter": "onnx", "variant": "", **measured},
            )
    rows = list(results.values())
    REPORT.write_text(as_markdown(rows))
    print(as_text(rows))
    print("\n".join(summary(rows)))
    return int(any(outcome(row) == "failed" for row in rows))


def _export(entry: Architecture, exporters: Sequence[str], fresh: bool) -> None:
    """Export what is missing."""
    folder = _folder(entry)
    missing = [
        exporter
        for exporter in exporters
        if fresh or not any((folder / f"{exporter}.{end}").exists() for end in ("onnx", "error"))
    ]
    if not missing:
        return
    print(f"exporting {entry.name}", file=sys.stderr, flush=True)
    ended, _ = in_child(export_all, entry.name, folder, missing)
    for exporter in missing:
        model = folder / f"{exporter}.onnx"
        if not model.exists() and not model.with_suffix(".error").exists():
            model.with_suffix(".error").write_text(f"the exporter's process {ended}")


def _row(entry: Architecture, exporter: str, variant: str, backends: str) -> dict[str, Any]:
    """What became of one architecture by one exporter."""
    row = {
        "name": entry.name,
        "domain": entry.domain,
        "exporter": exporter,
        "variant": variant,
        "tolerance": TOLERANCES[variant],
    }
    folder = _folder(entry)
    model = folder / f"{'.'.join(filter(None, (exporter, variant.replace(' ', '-'))))}.onnx"
    if model.exists():
        return row | _measured(model, folder, backends)
    error = model.with_suffix(".error")
    return row | {"reason": error.read_text() if error.exists() else "the model was not exported"}


def _measured(model: Path, folder: Path, backends: str) -> dict[str, Any]:
    """Run a model in two fresh processes: without compiled kernels on disk, and with them."""
    names = backends.split(",")
    with tempfile.TemporaryDirectory() as cache:
        ended, cold = in_child(measure, model, folder, names, cache)
        if cold is None:
            return {"failures": {backends: f"the process {ended}"}}
        if "numba" in cold["errors"]:
            _, warm = in_child(measure, model, folder, ["numba"], cache)
            if warm is not None and "numba" in warm["seconds"]:
                cold["seconds"]["numba warm"] = warm["seconds"]["numba"]
    found: dict[str, Any] = cold
    return found


def _keep(results: dict[str, dict[str, Any]], row: dict[str, Any]) -> None:
    """Add a row, write all of them, and say so."""
    key = " / ".join(filter(None, (row["name"], row["exporter"], row["variant"])))
    results[key] = row
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{outcome(row):14} {key}", file=sys.stderr, flush=True)


def _folder(entry: Architecture) -> Path:
    return FOLDER / entry.name.replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
