"""Pooling schemes against the reference."""

from __future__ import annotations

import pytest

from mnnpy.runtime.ops.pooling import AveragePool, MaxPool
from tests.pairwise import Case, pairwise
from tests.schemes.cases import GRAINS, check, normal

PARAMETERS = {
    "kind": ("max", "average", "average with padding"),
    "batch": (1, 2),
    "c": (1, 3, 17),
    "height": (3, 7, 13),
    "width": (3, 4, 13),
    "kernel": ((1, 1), (2, 2), (3, 3), (1, 3), (3, 2)),
    "strides": ((1, 1), (2, 2), (2, 1), (3, 3)),
    "pads": ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)),
    "ceil": (0, 1),
}


def fits(case: Case) -> bool:
    """ONNX asks for padding smaller than the kernel."""
    low, high = case["pads"][:2], case["pads"][2:]
    return all(max(a, b) < k for a, b, k in zip(low, high, case["kernel"], strict=True))


@pytest.mark.parametrize("case", pairwise(PARAMETERS, fits), ids=str)
def test_pools(case: Case) -> None:
    window = (case["kernel"], case["strides"], case["pads"], (), "NOTSET", case["ceil"])
    padded = int(case["kind"] == "average with padding")
    op = MaxPool(*window) if case["kind"] == "max" else AveragePool(*window, padded)
    x = normal(1, case["batch"], case["c"], case["height"], case["width"])
    assert check(op, [x], grains=GRAINS[1:])
