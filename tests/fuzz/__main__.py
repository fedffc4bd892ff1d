"""``python -m tests.fuzz``: counts by outcome; what must not be is saved."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.cases import Kind, make_case, read_seeds, write_seeds
from tests.fuzz.running import Report, run_case, run_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000, help="damaged models to load and run")
    parser.add_argument("--feeds", type=int, default=10_000, help="damaged feeds of valid models")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    attempt = partial(run_case, backend=options.backend)
    with TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        write_seeds(seeds)
        kinds: tuple[tuple[Kind, int], ...] = (("models", options.models), ("feeds", options.feeds))
        for kind, count in kinds:
            numbers = range(options.first, options.first + count)
            report = run_cases(seeds, kind, numbers, attempt)
            print(f"{count} {kind} on {options.backend}", flush=True)
            show(report)
            save(report, seeds, kind, options.output)


def show(report: Report) -> None:
    for label, count in report.counts.most_common():
        print(f"  {count:6} {label}")
    print(f"  longest {report.longest:.2f} s, grown by {report.nbytes / 2**20:.0f} MiB")
    for number, outcome in report.bad.items():
        print(f"  case {number}: {outcome.kind} {outcome.detail}")


def save(report: Report, seeds: Path, kind: Kind, folder: Path) -> None:
    """The bytes of each bad case's model, and its feeds where they can be kept."""
    for number in report.bad:
        case = make_case(read_seeds(seeds), kind, number)
        (folder / f"{kind}_{number}.model").write_bytes(case.model)
        if kind == "feeds":
            (folder / f"{kind}_{number}.txt").write_text(f"{case.name}\n{case.feeds!r}\n")


if __name__ == "__main__":
    main()
