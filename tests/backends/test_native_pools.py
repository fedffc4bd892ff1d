"""The generated sliding pools over odd windows, against the reference."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops.pooling import AveragePool, MaxPool
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import candidates, run_kernel
from tests.pairwise import Case, pairwise

PARAMETERS = {
    "kind": (MaxPool, AveragePool),
    "batch": (1, 2),
    "channels": (1, 15, 16, 17, 33),
    "height": (1, 2, 7, 14),
    "width": (1, 3, 8, 29),
    "kernel": ((1, 1), (2, 2), (3, 3), (1, 5), (5, 1), (2, 3)),
    "strides": ((1, 1), (2, 2), (1, 3), (4, 4)),
    "pads": ((), (0, 0, 1, 1), (1, 1, 1, 1), (2, 0, 0, 1), (3, 3, 3, 3), "SAME_LOWER"),
    "ceil_mode": (0, 1),
    "padding_counts": (0, 1),
    "halo": (0, 2),
}

ROWS = PARAMETERS | {
    "kernel": ((1,), (2,), (3,), (5,)),
    "strides": ((1,), (2,), (4,)),
    "pads": ((), (0, 1), (1, 1), (2, 0), (3, 3), "SAME_LOWER"),
    "height": (1,),
}
"""One spatial axis."""


def _pool(case: Case) -> MaxPool | AveragePool:
    attributes = {"strides": case["strides"], "ceil_mode": case["ceil_mode"]}
    by_rule = isinstance(case["pads"], str)
    attributes |= {"auto_pad": case["pads"]} if by_rule else {"pads": case["pads"]}
    if case["kind"] is AveragePool:
        attributes["count_include_pad"] = case["padding_counts"]
    pool: MaxPool | AveragePool = case["kind"](case["kernel"], **attributes)
    return pool


def _spatial(case: Case) -> tuple[int, ...]:
    both: tuple[int, ...] = case["height"], case["width"]
    return both[-len(case["kernel"]) :]


def fits(case: Case) -> bool:
    """Whether the window fits, and its padding is not a thing of two answers."""
    try:
        _pool(case).window(_spatial(case))
    except ShapeError:
        return False
    return not (case["kind"] is AveragePool and case["padding_counts"] and case["ceil_mode"])


def shown(case: Case) -> str:
    return "-".join(getattr(value, "__name__", str(value)) for value in case.values())


CASES = [*pairwise(PARAMETERS, fits), *pairwise(ROWS, fits)]


@pytest.mark.parametrize("case", CASES, ids=shown)
def test_odd_shapes_of_pools(case: Case) -> None:
    op = _pool(case)
    shape = case["batch"], case["channels"], *_spatial(case)
    x = np.random.default_rng(prod(shape)).standard_normal(shape).astype(np.float32)
    value = Value(type_of(x))
    task = Task(op, (value,), op.infer(value)[:1])
    with np.errstate(invalid="ignore"):  # The mean of a window in the padding.
        wanted = op.reference(np, x.astype(np.float64))[0]
    backend = load_backend("numba")
    found = [
        run_kernel(backend, kernel, config, task, [x], case["halo"])
        for kernel, config in candidates(backend, task)
    ]
    assert len(found) == 1
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
