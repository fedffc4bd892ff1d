"""The performance table of ``README.md``, made from ``results/cpu.json``.

``python -m benchmarks.readme`` writes it between two comments of that file.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.engines import Mnnpy
from benchmarks.markdown import markdown_table, ratio
from benchmarks.results import Case, Comparison, read_results
from mnnpy.runtime.files import write_atomically

_ROOT = Path(__file__).resolve().parents[1]
README = _ROOT / "README.md"
RESULTS = _ROOT / "benchmarks" / "results" / "cpu.json"
BEGIN = "<!-- benchmarks: made by python -m benchmarks.readme -->"
END = "<!-- end of benchmarks -->"
_OURS = Mnnpy("numba").name
_TITLES = {_OURS: "mnnpy", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "mnn": "MNN"}


def performance_table(compared: Comparison) -> str:
    """Best times at batch 1 in milliseconds and our speed-up over the best peer."""
    cases = [case for case in compared.cases(min(compared.threads)) if case.batch == 1]
    engines = [_OURS, *compared.peers]
    headings, means = ["model, ms"], ["geometric mean, convolutional"]
    for threads in compared.threads:
        named = "1 thread" if threads == 1 else f"{threads} threads"
        headings += [*(_TITLES.get(e, e) for e in engines), f"speed-up, {named}"]
        means += [*[""] * len(engines), ratio(compared.mean_speed_up(threads, _OURS))]
    rows = [
        [str(case), *(cell for t in compared.threads for cell in _cells(compared, case, t))]
        for case in cases
    ]
    return markdown_table(headings, [*rows, means])


def _cells(compared: Comparison, case: Case, threads: int) -> list[str]:
    times = (compared.best(case, threads, engine) for engine in (_OURS, *compared.peers))
    shown = ("-" if time is None else f"{time:.1f}" for time in times)
    return [*shown, ratio(compared.speed_up(case, threads, _OURS))]


def with_table(text: str, table: str) -> str:
    """The text with the table between the two comments.

    Raises
    ------
    ValueError
        Where the text does not hold each comment once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"there must be one {BEGIN!r} and behind it one {END!r}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Rewrite the table."""
    table = performance_table(Comparison(read_results(RESULTS)))
    write_atomically(README, with_table(README.read_text(), table).encode())


if __name__ == "__main__":
    main()
