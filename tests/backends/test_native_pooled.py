"""A convolution and the maximum of windows behind it as one kernel, over odd shapes."""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.backends.numba_cpu.conv_pooled import ConvPooled
from mnnpy.backends.numba_cpu.conv_winograd_pooled import ConvWinogradPooled
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.pooling import MaxPool
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, run_kernel
from tests.pairwise import Case, pairwise

BACKEND = load_backend("numba")

PARAMETERS = {
    "batch": (1, 3),
    "c": (1, 3, 16, 17),
    "k": (1, 16, 33, 64),
    "height": (56, 71),
    "width": (7, 14, 29),
    "kernel": ((1, 1), (3, 3), (2, 3)),
    "strides": ((1, 1), (2, 2)),
    "pool": ((2, 2), (3, 3), (3, 2)),
    "pool_strides": ((2, 2), (1, 1), (2, 1)),
    "pool_pads": ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)),
    "ceil": (0, 1),
    "act": (None, act.Relu(), act.HardSwish()),
    "halo": (0, 2),
}


WINOGRAD = {
    "batch": (1, 3),
    "c": (16, 17, 33),
    "k": (1, 16, 33, 64),
    "height": (6, 13, 14, 71),
    "width": (7, 14, 15),
    "kernel": ((3, 3), (2, 3), (5, 5)),
    "strides": ((1, 1),),
    "pool": ((2, 2), (3, 3)),
    "act": (None, act.Relu(), act.HardSwish()),
    "halo": (0, 2),
}


def holds_windows(case: Case) -> bool:
    """Tiles for five taps have two or four outputs, which no windows of three fill."""
    return case["kernel"] != (5, 5) or case["pool"] == (2, 2)


def fits(case: Case) -> bool:
    """Pads are smaller than the window."""
    return max(case["pool_pads"]) < min(case["pool"])


@pytest.mark.parametrize(
    "case", pairwise(PARAMETERS, fits), ids=lambda case: "-".join(map(str, case.values()))
)
def test_odd_shapes_of_pooled_convolutions(case: Case) -> None:
    task, arrays = _task(case)
    (wanted,) = task.op.reference(np, *(array.astype(np.float64) for array in arrays))
    (found,) = _run(task, arrays, case["halo"], ConvPooled)
    assert np.max(np.abs(found - wanted)) <= 5e-6 * max(np.max(np.abs(wanted)), 1e-6)


@pytest.mark.parametrize(
    "case",
    pairwise(WINOGRAD, holds_windows),
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_odd_shapes_of_pooled_winograd_convolutions(case: Case) -> None:
    task, arrays = _task(case | {"pool_strides": case["pool"], "pool_pads": (0,) * 4, "ceil": 0})
    _check_winograd(task, arrays, case["halo"])


def test_blocks_that_all_threads_share() -> None:
    """Too many channels for the stack of a thread."""
    case = {name: values[0] for name, values in WINOGRAD.items()}
    case |= {"c": 256, "k": 64, "height": 28, "width": 28, "batch": 2, "halo": 1}
    task, arrays = _task(case | {"pool_strides": (2, 2), "pool_pads": (0,) * 4, "ceil": 0})
    kernels = candidates(BACKEND, task)
    shares = [dict(c)["shares"] for k, c in kernels if k.scheme == ConvWinogradPooled.scheme]
    assert 0 in shares
    _check_winograd(task, arrays, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"pool_strides": (1, 1)},
        {"pool": (3, 2), "pool_strides": (3, 2)},
        {"pool_pads": (1, 1, 1, 1)},
        {"height": 13, "ceil": 1},
        {"pool": (7, 7), "pool_strides": (7, 7)},
        {"kernel": (5, 5), "pool": (3, 3), "pool_strides": (3, 3)},
    ],
    ids=str,
)
def test_windows_that_tiles_do_not_hold_whole(changed: Case) -> None:
    case = {name: values[0] for name, values in WINOGRAD.items()}
    case |= {"height": 14, "width": 14, "pool_strides": (2, 2), "pool_pads": (0,) * 4, "ceil": 0}
    task, arrays = _task(case)
    assert _run(task, arrays, 0, ConvWinogradPooled)
    task, arrays = _task(case | changed)
    assert not _run(task, arrays, 0, ConvWinogradPooled)


def test_padding_of_the_pool_is_below_everything() -> None:
    case = {name: values[0] for name, values in PARAMETERS.items()}
    case |= {"pool": (3, 3), "pool_pads": (1, 1, 1, 1), "k": 16}
    task, (x, w, b) = _task(case)
    (found,) = _run(task, [x, w, b - 1000], 0, ConvPooled)
    assert found.max() < -500


def test_what_is_not_a_number_survives() -> None:
    case = {name: values[0] for name, values in PARAMETERS.items()} | {"k": 16, "act": act.Relu()}
    task, (x, w, b) = _task(case)
    x[0, 0, 5, 3] = np.nan
    (found,) = _run(task, [x, w, b], 0, ConvPooled)
    assert np.isnan(found[0, :, 3, 1]).all()
    assert np.isnan(found).sum() == found.shape[1]


def _check_winograd(task: Task, arrays: list[Array], halo: int) -> None:
    """Every configuration errs by no more than it states."""
    (wanted,) = task.op.reference(np, *(array.astype(np.float64) for array in arrays))
    kernels = [
        entry for entry in candidates(BACKEND, task) if isinstance(entry[0], ConvWinogradPooled)
    ]
    assert kernels
    for kernel, config in kernels:
        found = run_kernel(BACKEND, kernel, config, task, arrays, halo)
        allowed = 5e-6 + kernel.max_error(task, config)
        assert np.max(np.abs(found - wanted)) <= allowed * max(np.max(np.abs(wanted)), 1e-6)


def _run(
    task: Task, arrays: list[Array], halo: int, kind: type[ConvPooled | ConvWinogradPooled]
) -> list[Array]:
    """Results of every configuration that a kernel offers."""
    values = tuple(
        Value(v.tensor, array if v.known is not None else None)
        for v, array in zip((v for v in task.inputs if v is not None), arrays, strict=True)
    )
    task = Task(task.op, values, task.outputs)
    return [
        run_kernel(BACKEND, kernel, config, task, arrays, halo)
        for kernel, config in candidates(BACKEND, task)
        if kernel.scheme == kind.scheme
    ]


def _task(case: Case) -> tuple[Task, list[Array]]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    x = normal(case["batch"], case["c"], case["height"], case["width"])
    arrays = {"x": x, "w": normal(case["k"], case["c"], *case["kernel"]), "b": normal(case["k"])}
    nodes = [Node("conv", Conv(case["strides"], (1, 0, 1, 1)), ("x", "w", "b"), ("y",))]
    if case["act"]:
        nodes.append(Node("act", case["act"], ("y",), ("z",)))
    pool = MaxPool(case["pool"], case["pool_strides"], case["pool_pads"], ceil_mode=case["ceil"])
    nodes.append(Node("pool", pool, nodes[-1].outputs, ("p",)))
    types = {name: type_of(array) for name, array in arrays.items()}
    region = Fused(Graph(tuple(nodes), types, ("p",)))
    values = tuple(Value(type_of(a), None if n == "x" else a) for n, a in arrays.items())
    return Task(region, values, region.infer(*values)), list(arrays.values())
