"""Matrix products against the reference, over odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.schemes.matmul_strassen import scratch_elements, strassen
from tests.pairwise import Case, pairwise
from tests.schemes.cases import check, error, normal

SIZES = (1, 2, 3, 15, 16, 17, 33, 65)
MATRICES = {"m": (*SIZES, 130), "k": (*SIZES, 131), "n": (*SIZES, 129), "constant": (True, False)}
GEMM = MATRICES | {
    "transA": (0, 1),
    "transB": (0, 1),
    "alpha": (1.0, 0.5),
    "beta": (1.0, 0.25, 0.0),
    "c": ("none", "scalar", "row", "column", "full", "vector"),
}


def anything(case: Case) -> bool:
    return True


@pytest.mark.parametrize("case", pairwise(MATRICES, anything), ids=str)
def test_matmul(case: Case) -> None:
    arrays = [normal(1, case["m"], case["k"]), normal(2, case["k"], case["n"])]
    met = check(MatMul(), arrays, (1,) if case["constant"] else ())
    assert {"matmul_direct", "reference"} <= met
    assert ("matmul_strassen" in met) or min(case["m"], case["k"], case["n"]) < 60


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((3,), (3, 5)),
        ((4, 3), (3,)),
        ((2, 4, 3), (3, 5)),
        ((2, 4, 3), (2, 3, 5)),
        ((3, 1, 4, 3), (2, 3, 5)),
        ((2, 4, 3), (3,)),
        ((3,), (2, 3, 5)),
        ((1, 1, 1), (1, 1)),
        ((0, 3), (3, 5)),
        ((2, 0), (0, 3)),
    ],
)
def test_stacks_and_vectors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert check(MatMul(), [normal(1, *a), normal(2, *b)])


@pytest.mark.parametrize("case", pairwise(GEMM, anything), ids=str)
def test_gemm(case: Case) -> None:
    m, k, n = case["m"], case["k"], case["n"]
    a = normal(1, *((k, m) if case["transA"] else (m, k)))
    b = normal(2, *((n, k) if case["transB"] else (k, n)))
    shape = {"scalar": (), "row": (1, n), "column": (m, 1), "full": (m, n), "vector": (n,)}
    c = [normal(3, *shape[case["c"]])] if case["c"] != "none" else []
    op = Gemm(case["alpha"], case["beta"], case["transA"], case["transB"])
    assert check(op, [a, b, *c], (1, 2)[: 1 + len(c)] if case["constant"] else ())


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(8, 8, 8), (9, 8, 8), (8, 9, 8), (8, 8, 9), (9, 11, 13), (15, 17, 33), (31, 8, 65)],
)
def test_strassen_of_odd_sizes(levels: int, m: int, k: int, n: int) -> None:
    a, b = normal(1, m, k, dtype=np.float64), normal(2, k, n, dtype=np.float64)
    y = np.full((m, n), np.nan)
    scratch = np.full(scratch_elements(m, k, n, levels), np.nan)
    for run in strassen(np, a, b, y, scratch, levels):
        run()
    assert error(y, a @ b) < 1e-13


def test_integers_take_the_exact_schemes() -> None:
    a = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert "matmul_strassen" not in check(MatMul(), [a, a.T.copy()], tolerance=0)
