"""Inverted residual blocks, whole or without what narrows them, as one kernel over odd shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mnnpy
from benchmarks.onnx_builder import Builder
from mnnpy.backends.numba_cpu.backend import NumbaBackend
from mnnpy.backends.numba_cpu.conv_inverted import ConvInverted
from mnnpy.backends.numba_cpu.conv_widened import ConvWidened
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.registry import load_backend
from tests.backends.convolution_chains import Stage, assert_close, chain_task, computed, kernel_for
from tests.backends.test_kernels import Array
from tests.pairwise import Case, pairwise

PARAMETERS = {
    "batch": (1, 2, 3),
    "c": (1, 3, 15, 16, 17, 33),
    "first": ((1, 1), (3, 3), (1, 5)),
    "wide": (1, 3, 15, 16, 17, 33),
    "k": (1, 3, 15, 16, 17, 33),
    "height": (1, 2, 7, 13, 14, 24, 48),
    "width": (1, 2, 7, 13, 14, 15, 29),
    "kernel": ((3, 3), (5, 5), (1, 3), (3, 1)),
    "pads": ((1, 1, 1, 1), (0, 1, 2, 1), (2, 0, 1, 3), (0, 0, 0, 0)),
    "strides": ((1, 1), (2, 2), (2, 1), (3, 2)),
    "dilations": ((1, 1), (2, 1)),
    "biased": (False, True),
    "widened": (None, act.Relu(), act.Sigmoid()),
    "between": (None, act.HardSwish()),
    "behind": (None, act.Relu(), ew.Add()),
    "halo": (0, 2),
}
WITHOUT_NARROWING = {
    name: values for name, values in PARAMETERS.items() if name not in ("k", "behind")
}
SCHEMES = {3: ConvInverted.scheme, 2: ConvWidened.scheme}
"""By the number of convolutions."""

BLOCK: Case = {
    "batch": 2,
    "c": 17,
    "first": (1, 1),
    "wide": 33,
    "k": 17,
    "height": 26,
    "width": 15,
    "kernel": (3, 3),
    "pads": (1, 1, 1, 1),
    "strides": (1, 1),
    "dilations": (1, 1),
    "biased": True,
    "widened": act.Relu(),
    "between": act.Relu(),
    "behind": ew.Add(),
    "halo": 0,
}


def extents(case: Case) -> list[int]:
    sizes = zip(case["kernel"], case["dilations"], strict=True)
    return [(kernel - 1) * dilation + 1 for kernel, dilation in sizes]


def fits(case: Case) -> bool:
    top, left, bottom, right = case["pads"]
    sizes = case["height"] + top + bottom, case["width"] + left + right
    again = extents(case)[0] - case["strides"][0]
    inside = all(size >= extent for size, extent in zip(sizes, extents(case), strict=True))
    return inside and 12 * again <= case["height"]


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


def task_of(case: Case, shortcut: bool = False, length: int = 3) -> tuple[Task, list[Array]]:
    """The first convolutions of a block, by default all three."""
    wide = case["wide"]
    pads = tuple(size // 2 for size in case["first"]) * 2
    depthwise = Conv(case["strides"], case["pads"], case["dilations"], group=wide)
    stages = (
        Stage(Conv(pads=pads), (wide, case["c"], *case["first"]), case["widened"]),
        Stage(depthwise, (wide, 1, *case["kernel"]), case["between"]),
        Stage(Conv(), (case.get("k", 1), wide, 1, 1), case.get("behind")),
    )
    x = (case["batch"], case["c"], case["height"], case["width"])
    return chain_task(x, stages[:length], case["biased"], shortcut)


@pytest.mark.parametrize("case", pairwise(PARAMETERS, fits), ids=shown)
def test_odd_shapes_of_inverted_blocks(case: Case) -> None:
    task, arrays = task_of(case)
    assert_close(computed(task, arrays, ConvInverted.scheme, case["halo"]), task, arrays)


@pytest.mark.parametrize("case", pairwise(WITHOUT_NARROWING, fits), ids=shown)
def test_odd_shapes_without_narrowing(case: Case) -> None:
    task, arrays = task_of(case, length=2)
    assert_close(computed(task, arrays, ConvWidened.scheme, case["halo"]), task, arrays)


@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("first", [(1, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("channels", [4, 15, 16, 33])
def test_odd_shapes_with_the_input_as_shortcut(
    channels: int, first: tuple[int, int], halo: int
) -> None:
    changed = {"c": channels, "k": channels, "first": first}
    task, arrays = task_of({**BLOCK, **changed}, shortcut=True)
    assert_close(computed(task, arrays, ConvInverted.scheme, halo), task, arrays)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("length", SCHEMES)
def test_odd_shapes_in_ranges_of_units(
    length: int, threads: int, strides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every range begins with rows of its own, in the middle of a picture, too."""
    monkeypatch.setattr(NumbaBackend, "_team", lambda *_: threads)
    task, arrays = task_of({**BLOCK, "strides": strides}, length=length)
    assert_close(computed(task, arrays, SCHEMES[length]), task, arrays)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 16, 25, 14), (0, 7, 12, 7)], ids=str)
def test_odd_shapes_keep_special_numbers(place: tuple[int, ...], special: float) -> None:
    """NaN and infinity reach the outputs that read them, and no others."""
    task, arrays = task_of({**BLOCK, "widened": None, "between": None, "behind": None})
    arrays[0][place] = special
    with np.errstate(invalid="ignore"):
        (wanted,) = task.op.reference(np, *(array.astype(np.float64) for array in arrays))
    assert not np.isfinite(wanted).all()
    np.testing.assert_allclose(
        computed(task, arrays, ConvInverted.scheme), wanted, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"height": 9}, "few rows for windows"),
        ({"height": 1, "kernel": (1, 3), "pads": (0, 1, 0, 1), "batch": 1}, "1 rows for 2 threads"),
        ({"pads": (1, 1, 1, -1), "behind": None}, "padding cuts"),
        ({"c": 300, "wide": 300, "k": 300}, "near cache"),
        ({"c": 3, "k": 3}, "another layout"),
        ({"wide": 300, "width": 300}, "overflow the stack"),
        ({"c": 33, "k": 33, "widened": ew.Add(), "behind": None}, "between the convolutions"),
    ],
    ids=str,
)
def test_reasons_against_inverted_blocks(changed: Case, reason: str) -> None:
    task, _ = task_of({**BLOCK, **changed}, shortcut=True)
    device = replace(load_backend("numba").describe(), threads=2)
    found = kernel_for(task, ConvInverted.scheme).reject(task, device)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("threads", [1, 2])
def test_network_of_inverted_blocks(threads: int) -> None:
    """Its first layers and every block, with and without a shortcut, are one step each."""
    b = Builder("blocks", seed=0)
    x = b.input("x", 2, (3, 45, 47))
    x = b.conv(x, 24, 3, stride=2, act="Clip6")
    x = b.conv(b.depthwise(x, 1, "Clip6"), 16, 1, act=None)
    for channels, stride in ((16, 1), (20, 2), (20, 1)):
        shortcut = x
        x = b.depthwise(b.conv(x, 40, 1, act="Clip6"), stride, "Clip6")
        x = b.conv(x, channels, 1, act=None)
        x = b.add(shortcut, x) if stride == 1 else x
    model = b.finish(x, "y", 2).SerializeToString()
    feed = np.random.default_rng(0).standard_normal((2, 3, 45, 47), dtype=np.float32)
    allowed = Constraints(allowed={"Conv": frozenset([ConvInverted.scheme])})
    with mnnpy.Session(model, backend="numpy") as session:
        (wanted,) = session.run(feed).values()
    with mnnpy.Session(model, backend="numba", threads=threads, constraints=allowed) as session:
        (found,) = session.run(feed).values()
        schemes = [step.choice.scheme for step in session.executable(feed).plan.steps]
    assert schemes.count(ConvInverted.scheme) == 4
    assert np.max(np.abs(found - wanted)) <= 1e-5 * np.max(np.abs(wanted))


def test_plans_for_few_threads_bind_on_machines_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too little work for all threads of a machine is enough for those of a session."""
    device = replace(load_backend("numba").describe(), threads=64)
    monkeypatch.setattr(NumbaBackend, "describe", lambda self: device)
    b = Builder("block", seed=0)
    x = b.conv(b.input("x", 1, (16, 56, 56)), 96, 1, act="Clip6")
    x = b.conv(b.depthwise(x, 1, "Clip6"), 16, 1, act=None)
    model = b.finish(x, "y", 1).SerializeToString()
    feed = np.ones((1, 16, 56, 56), np.float32)
    with mnnpy.Session(model, backend="numba", threads=1) as session:
        session.run(feed)
        steps = session.executable(feed).plan.steps
        assert ConvInverted.scheme in [step.choice.scheme for step in steps]
    with mnnpy.Session(model, backend="numba", threads=64) as session:
        steps = session.plan(feed.shape).steps
        assert ConvInverted.scheme not in [step.choice.scheme for step in steps]
