"""Per layer: the time of every step of our plan, beside its prediction and the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.engines import Arrays
from mnnpy import Session
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.preinference.explain import seconds_text, shape_text
from mnnpy.runtime.preinference.plan import Step
from mnnpy.runtime.text_table import text_table

_NAMES = ("node", "operator", "output", "scheme")
_NUMBERS = ("step", "MMACs", "predicted", "best", "/ predicted", "share", "GFLOP/s", "of peak")


def layer_table(
    model: bytes, feeds: Arrays, backend: str, threads: int, peak: float, repeats: int = 10
) -> str:
    """One line per step, then the totals.

    GFLOP/s count the multiply-adds of the textbook algorithm: a scheme that needs fewer, such as
    Winograd, can come out above the peak.

    Parameters
    ----------
    peak : GFLOP/s that the machine reaches on these threads.
    """
    with Session(model, backend=backend, threads=threads) as session:
        profile = session.profile(feeds, repeats)
        values = session.executable(feeds).values
    measured = sum(step.best for step in profile.steps)
    rows = []
    for index, entry in enumerate(profile.steps):
        step, macs = entry.step, step_macs(entry.step, values)
        rate = 2 * macs / entry.best / 1e9
        rows.append(
            [
                str(index),
                step.node.name,
                step.node.op.kind,
                " ".join(map(shape_text, step.types)) or "-",
                step.choice.scheme,
                f"{macs / 1e6:.1f}" if macs else "-",
                seconds_text(entry.predicted),
                seconds_text(entry.best),
                f"{entry.best / entry.predicted:.2f}x" if entry.predicted else "-",
                f"{100 * entry.best / measured:.1f}%",
                f"{rate:.1f}" if macs else "-",
                f"{100 * rate / peak:.0f}%" if macs else "-",
            ]
        )
    total = sum(step_macs(entry.step, values) for entry in profile.steps)
    rate = 2 * total / profile.best / 1e9
    table = text_table((_NUMBERS[0], *_NAMES, *_NUMBERS[1:]), rows, _NUMBERS)
    return (
        f"{table}\n\nwhole run {seconds_text(profile.best)} best, steps {seconds_text(measured)}, "
        f"predicted {seconds_text(profile.predicted)}; {total / 1e6:,.0f} MMACs, "
        f"{rate:.1f} GFLOP/s, {100 * rate / peak:.0f}% of the peak of {peak:.0f}"
    )


def step_macs(step: Step, values: Mapping[str, Value]) -> int:
    """Multiply-adds of a step by the operator's textbook algorithm."""
    reads = [None if name is None else _value(name, values) for name in step.node.inputs]
    return step.node.op.macs(reads, step.types)


def _value(name: str, values: Mapping[str, Value]) -> Value:
    """A value of the graph, which a plan may name with where its copy lies (``name@memory``)."""
    return values[name] if name in values else values[name.rsplit("@", 1)[0]]
