"""Plans that are given: schemes stay on other threads and machines, tiles and shares may not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mnnpy
from benchmarks.onnx_builder import Builder
from mnnpy.backends.numba_cpu.backend import NumbaBackend
from mnnpy.runtime.devices import TileRates
from mnnpy.runtime.preinference.plan import Plan
from mnnpy.runtime.registry import load_backend

FEED = np.random.default_rng(0).standard_normal((1, 64, 29, 28), dtype=np.float32)


def model() -> bytes:
    b = Builder("network", seed=0)
    x = b.conv(b.input("x", 1, (64, 29, 28)), 64, 3, act="Relu")
    x = b.conv(x, 128, 1, act="Relu")
    x = b.conv(b.depthwise(x, 1, "Clip6"), 32, 1, act=None)
    return b.finish(x, "y", 1).SerializeToString()


def machine(monkeypatch: pytest.MonkeyPatch, threads: int, rates: TileRates) -> None:
    device = replace(load_backend("numba").describe(), threads=threads, tile_rates=rates)
    monkeypatch.setattr(NumbaBackend, "describe", lambda self: device)


def schemes(plan: Plan) -> list[str]:
    return [step.choice.scheme for step in plan.steps if step.choice.scheme != "copy"]


@pytest.mark.parametrize("made_for", [1, 2, 8])
@pytest.mark.parametrize("run_on", [1, 2, 3, 8])
def test_plans_run_on_other_threads(
    made_for: int, run_on: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = load_backend("numba").describe().tile_rates
    machine(monkeypatch, 8, rates)
    with mnnpy.Session(model(), backend="numba", threads=made_for) as session:
        (wanted,) = session.run(FEED).values()
        plan = session.plan()
    with mnnpy.Session(model(), backend="numba", threads=run_on, plan=plan) as session:
        (found,) = session.run(FEED).values()
        assert schemes(session.plan()) == schemes(plan)
    assert np.max(np.abs(found - wanted)) <= 1e-5 * np.max(np.abs(wanted))


def test_plans_run_on_machines_of_other_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    with mnnpy.Session(model(), backend="numba", threads=1) as session:
        (wanted,) = session.run(FEED).values()
        plan = session.plan()
    machine(monkeypatch, 2, ((1, 1, 1e9), (5, 1, 9e9), (1, 2, 1e9), (3, 2, 1e9)))
    with mnnpy.Session(model(), backend="numba", threads=1, plan=plan) as session:
        (found,) = session.run(FEED).values()
        made = session.plan()
    assert schemes(made) == schemes(plan)
    assert [step.choice.config for step in made.steps] != [s.choice.config for s in plan.steps]
    assert np.max(np.abs(found - wanted)) <= 1e-5 * np.max(np.abs(wanted))
