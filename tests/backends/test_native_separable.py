"""A depthwise convolution and the 1x1 convolution behind it as one kernel, over odd shapes."""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.backends.numba_cpu.conv_separable import ConvSeparable
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
    "batch": (1, 3),
    "c": (1, 8, 15, 16, 17, 33),
    "k": (1, 8, 16, 17, 24, 40),
    "height": (3, 7, 14),
    "width": (3, 14, 15, 29),
    "kernel": ((3, 3), (5, 5), (1, 3), (3, 1)),
    "pads": ((1, 1, 1, 1), (0, 1, 2, 1), (2, 2, 2, 2)),
    "strides": ((1, 1), (2, 2), (2, 1)),
    "biased": (False, True),
    "between": (None, act.Relu(), act.HardSwish()),
    "behind": (None, act.Relu(), ew.Add()),
    "halo": (0, 2),
}


def fits(case: Case) -> bool:
    top, left, bottom, right = case["pads"]
    sizes = case["height"] + top + bottom, case["width"] + left + right
    return all(size >= kernel for size, kernel in zip(sizes, case["kernel"], strict=True))


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("case", pairwise(PARAMETERS, fits), ids=shown)
def test_odd_shapes_of_separable_convolutions(case: Case) -> None:
    task, arrays = _task(case)
    (wanted,) = task.op.reference(np, *(array.astype(np.float64) for array in arrays))
    backend = load_backend("numba")
    found = [
        run_kernel(backend, kernel, config, task, arrays, case["halo"])
        for kernel, config in candidates(backend, task)
        if kernel.scheme == ConvSeparable.scheme
    ]
    assert len(found) == 1
    assert np.max(np.abs(found[0] - wanted)) <= 5e-6 * max(np.max(np.abs(wanted)), 1e-6)


def _task(case: Case) -> tuple[Task, list[Array]]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    c, k = case["c"], case["k"]
    depthwise = Conv(case["strides"], case["pads"], group=c)
    arrays = {"x": normal(case["batch"], c, case["height"], case["width"])}
    arrays |= {"w": normal(c, 1, *case["kernel"]), "w'": normal(k, c, 1, 1)}
    biases = ("b", "b'") if case["biased"] else (None, None)
    if case["biased"]:
        arrays |= {"b": normal(c), "b'": normal(k)}
    (between,) = depthwise.infer(Value(type_of(arrays["x"])), Value(type_of(arrays["w"])))
    nodes = [Node("depthwise", depthwise, ("x", "w", biases[0]), ("y",))]
    if case["between"]:
        nodes.append(Node("between", case["between"], ("y",), ("z",)))
    nodes.append(Node("dense", Conv(), (nodes[-1].outputs[0], "w'", biases[1]), ("u",)))
    constants = set(arrays) - {"x"}
    if isinstance(case["behind"], ew.Add):
        arrays["r"] = normal(case["batch"], k, *between.shape[2:])
        nodes.append(Node("behind", case["behind"], ("r", "u"), ("v",)))
    elif case["behind"]:
        nodes.append(Node("behind", case["behind"], ("u",), ("v",)))
    types = {name: type_of(array) for name, array in arrays.items()}
    region = Fused(Graph(tuple(nodes), types, nodes[-1].outputs))
    values = tuple(
        Value(type_of(array), array if name in constants else None)
        for name, array in arrays.items()
    )
    return Task(region, values, region.infer(*values)), list(arrays.values())
