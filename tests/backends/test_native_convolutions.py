"""The generated convolutions over odd shapes, against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, run_kernel
from tests.pairwise import Case, pairwise

PARAMETERS = {
    "batch": (1, 2, 3),
    "c": (1, 3, 15, 16, 17, 33),
    "k": (1, 15, 16, 17, 33, 64),
    "height": (1, 2, 7, 13, 14, 15),
    "width": (1, 2, 7, 13, 14, 29),
    "kernel": ((1, 1), (3, 3), (1, 3), (3, 1), (5, 5), (1, 7), (7, 1), (2, 3)),
    "pads": ("none", "same", "asymmetric"),
    "strides": ((1, 1), (1, 1), (2, 2), (2, 1)),
    "dilations": ((1, 1), (1, 1), (2, 2), (6, 9)),
    "depthwise": (False, False, True),
    "epilogue": ("none", "relu", "clip", "residual", "own input", "hard swish"),
    "halo": (0, 1, 3),
}


def fits(case: Case) -> bool:
    return all(size > 0 for size in _output(case))


def _spatial(case: Case) -> tuple[int, ...]:
    sizes: tuple[int, ...] = case.get("depth", 1), case["height"], case["width"]
    return sizes[-len(case["kernel"]) :]


def _extent(case: Case) -> list[int]:
    return [(r - 1) * d + 1 for r, d in zip(case["kernel"], case["dilations"], strict=True)]


def _pads(case: Case) -> tuple[int, ...]:
    extent = _extent(case)
    if case["pads"] == "same":
        return (*((span - 1) // 2 for span in extent), *(span // 2 for span in extent))
    if case["pads"] == "none":
        return (0,) * 2 * len(extent)
    return {1: (2, 1), 2: (1, 0, 2, 1), 3: (2, 0, 1, 1, 2, 0)}[len(extent)]


def _output(case: Case) -> list[int]:
    pads, axes = _pads(case), len(case["kernel"])
    ends = zip(_spatial(case), pads[:axes], pads[axes:], _extent(case), strict=True)
    return [size + begin + end - span + 1 for size, begin, end, span in ends]


CASES = list(pairwise(PARAMETERS, fits))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_odd_shapes(case: Case) -> None:
    task, arrays = _task(case)
    backend = load_backend("numba")
    wide = [array.astype(np.float64) for array in arrays]
    (wanted,) = task.op.reference(np, *wide)
    met = 0
    for kernel, config in candidates(backend, task):
        found = run_kernel(backend, kernel, config, task, arrays, case["halo"])
        worst = np.max(np.abs(found - wanted)) / max(np.max(np.abs(wanted)), 1e-6)
        allowed = 5e-6 + kernel.max_error(task, config)
        assert worst <= allowed, f"{kernel.scheme} {dict(config)} is off by {worst:.1e}"
        met += 1
    assert met, "no generated kernel takes this convolution"


GROUPED = PARAMETERS | {
    "groups": (
        (2, 4, 4),
        (3, 8, 8),
        (7, 2, 2),
        (5, 16, 16),
        (2, 16, 32),
        (3, 32, 16),
        (2, 48, 32),
        (19, 1, 2),
        (9, 2, 4),
        (6, 1, 4),
    ),
    "kernel": ((1, 1), (3, 3), (1, 3), (5, 5), (2, 3)),
    "depthwise": (False,),
}
"""Groups are (how many, channels, filters)."""


def _grouped(case: Case) -> Case:
    group, channels, filters = case["groups"]
    return case | {"group": group, "c": group * channels, "k": group * filters}


@pytest.mark.parametrize(
    "case", pairwise(GROUPED, fits), ids=lambda case: "-".join(map(str, case.values()))
)
def test_groups_of_several_channels(case: Case) -> None:
    test_odd_shapes(_grouped(case))


ROWS = {
    "kernel": ((1,), (2,), (3,), (7,), (10,)),
    "strides": ((1,), (1,), (2,), (5,)),
    "dilations": ((1,), (1,), (3,)),
    "height": (1,),
    "width": (1, 2, 7, 13, 14, 15, 61),
}


@pytest.mark.parametrize(
    "case",
    pairwise(PARAMETERS | ROWS, fits),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_odd_shapes_of_one_axis(case: Case) -> None:
    test_odd_shapes(case)


@pytest.mark.parametrize(
    "case",
    pairwise(GROUPED | ROWS, fits),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_odd_shapes_of_one_axis_in_groups(case: Case) -> None:
    test_odd_shapes(_grouped(case))


VOLUMES = PARAMETERS | {
    "batch": (1, 2),
    "depth": (1, 2, 3, 6),
    "c": (1, 3, 16, 17, 32),
    "kernel": ((1, 1, 1), (3, 3, 3), (1, 3, 3), (3, 1, 1), (2, 3, 1), (3, 5, 5)),
    "strides": ((1, 1, 1), (1, 1, 1), (2, 2, 2), (1, 2, 1)),
    "dilations": ((1, 1, 1), (1, 1, 1), (2, 1, 2)),
    "depthwise": (False,),
    "halo": (0, 1),
}


@pytest.mark.parametrize(
    "case",
    pairwise(VOLUMES, fits),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_odd_shapes_of_volumes(case: Case) -> None:
    test_odd_shapes(case)


@pytest.mark.parametrize("width", [1000, 30_000])
def test_very_wide_pictures(width: int) -> None:
    """Winograd keeps a row of products on the stack: it must refuse what does not fit there."""
    case = {name: values[0] for name, values in PARAMETERS.items()}
    case |= {"c": 16, "k": 16, "height": 3, "width": width, "kernel": (3, 3), "pads": "same"}
    test_odd_shapes(case)


def _task(case: Case) -> tuple[Task, list[Array]]:
    """Convolution, bias and epilogue as one region."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    c, k = case["c"], case["c"] if case["depthwise"] else case["k"]
    group = c if case["depthwise"] else case.get("group", 1)
    op = Conv(case["strides"], _pads(case), case["dilations"], group)
    x = normal(case["batch"], c, *_spatial(case))
    arrays = {"x": x, "w": normal(k, c // group, *case["kernel"]), "b": normal(k)}
    values = {name: Value(type_of(array)) for name, array in arrays.items()}
    (y,) = op.infer(*values.values())
    nodes = [Node("conv", op, ("x", "w", "b"), ("y",))]
    if case["epilogue"] == "residual":
        arrays["r"] = normal(*y.shape)
        nodes.append(Node("add", ew.Add(), ("y", "r"), ("s",)))
        nodes.append(Node("relu", act.Relu(), ("s",), ("z",)))
    elif case["epilogue"] == "own input":
        if y.shape == x.shape:
            nodes.append(Node("add", ew.Add(), ("x", "y"), ("z",)))
    elif case["epilogue"] == "clip":
        arrays["lower"], arrays["upper"] = np.float32([-30])[0:1], np.float32([40])
        nodes.append(Node("clip", act.Clip(), ("y", "lower", "upper"), ("z",)))
    elif case["epilogue"] != "none":
        act_op = act.Relu() if case["epilogue"] == "relu" else act.HardSwish()
        nodes.append(Node("act", act_op, ("y",), ("z",)))
    types = {name: type_of(array) for name, array in arrays.items()}
    region = Fused(Graph(tuple(nodes), types, nodes[-1].outputs))
    fused = region if len(nodes) > 1 else op
    known = {"w", "b", "lower", "upper"}
    inputs = tuple(
        Value(type_of(array), array if name in known else None) for name, array in arrays.items()
    )
    return Task(fused, inputs, fused.infer(*inputs)), list(arrays.values())
