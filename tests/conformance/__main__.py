"""``python -m tests.conformance``: run ONNX's suite, print the table, write it as JSON."""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

from tests.conformance.suite import cases, cases_file, expected_failures, run_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="numpy,numba", help="comma-separated")
    parser.add_argument("--filter", default="", help="only cases whose name contains this")
    parser.add_argument("--output", type=Path, default=Path("build/conformance.json"))
    options = parser.parse_args()
    logging.getLogger("mnnpy").setLevel(logging.ERROR)
    table: dict[str, dict[str, int]] = {}
    found: dict[str, dict[str, str]] = {}
    for backend in options.backends.split(","):
        outcomes: Counter[str] = Counter()
        found[backend] = {}
        for name, case in cases(backend).items():
            if options.filter not in name:
                continue
            result = run_case(case)
            outcomes[result.outcome] += 1
            found[backend][name] = result.outcome
            if result.outcome != "pass":
                known = "known" if name in expected_failures() else "NEW"
                reason = " ".join(result.reason.split())[:160]
                print(f"{backend} {result.outcome:4} {known:5} {name}: {reason}")
        table[backend] = {key: outcomes[key] for key in ("pass", "fail", "skip")}
        total = sum(outcomes.values())
        share = outcomes["pass"] / max(total, 1)
        print(f"{backend}: {table[backend]} of {total} ({share:.1%} pass)")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(table, indent=1) + "\n")
    cases_file(options.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
