"""Winograd's matrices, checked in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mnnpy.schemes import winograd_matrices as matrices
from mnnpy.schemes.conv_winograd import AMPLIFICATION
from mnnpy.schemes.winograd_matrices import MAX_TILE, winograd_matrices

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 8) if m + r - 1 <= 10]


def exact(matrix: np.ndarray) -> list[list[Fraction]]:  # type: ignore[type-arg]
    """Entries as the fractions that they stand for; data and output matrices hold them exactly."""
    return [[Fraction(float(v)).limit_denominator(1 << 20) for v in row] for row in matrix]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_matrices_compute_the_correlation(m: int, r: int) -> None:
    """y[i] = sum_j d[i + j] g[j] holds as an identity of polynomials in d and g."""
    at, g, bt = (exact(matrix) for matrix in winograd_matrices(m, r))
    a = m + r - 1
    assert (len(at), len(at[0])) == (m, a)
    assert (len(g), len(g[0])) == (a, r)
    assert (len(bt), len(bt[0])) == (a, a)
    for i in range(m):
        for j in range(r):
            for position in range(a):
                total = sum(at[i][t] * g[t][j] * bt[t][position] for t in range(a))
                assert total == (1 if position == i + j else 0)


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_data_matrix_is_whole(m: int, r: int) -> None:
    _, _, bt = winograd_matrices(m, r)
    assert np.array_equal(bt, np.round(bt))


def test_known_matrices_of_the_paper() -> None:
    """F(2, 3) of Lavin and Gray, equation 7, up to the order and signs of its rows."""
    at, g, bt = winograd_matrices(2, 3)
    assert np.abs(bt).sum() == 8
    assert sorted(np.abs(g).sum(axis=1)) == [1, 1, 1.5, 1.5]
    assert set(np.unique(at)) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(("m", "r"), [(0, 3), (2, 0), (MAX_TILE, 2), (-1, 3)])
def test_sizes_out_of_range(m: int, r: int) -> None:
    with pytest.raises(ValueError, match="is outside"):
        winograd_matrices(m, r)


def float32_errors(m: int, r: int) -> tuple[float, float]:
    """Root mean square errors of F(m x m, r x r), and of a direct convolution, over 32 channels of
    rectified noise.
    """
    at, g, bt = winograd_matrices(m, r)
    rng, a, channels = np.random.default_rng(0), m + r - 1, 32
    tiles = np.maximum(rng.standard_normal((64, channels, a, a), dtype=np.float32), 0)
    filters = rng.standard_normal((16, channels, r, r), dtype=np.float32)
    transformed = np.einsum("ar,kcrs,bs->abck", g, filters.astype(np.float64), g)
    b, back = bt.astype(np.float32), at.astype(np.float32)
    data = np.ascontiguousarray((b @ tiles @ b.T).transpose(2, 3, 0, 1))
    sums = np.ascontiguousarray((data @ transformed.astype(np.float32)).transpose(2, 3, 0, 1))
    windows = np.lib.stride_tricks.sliding_window_view(tiles, (r, r), axis=(2, 3))
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(64 * m * m, -1)
    columns = filters.reshape(16, -1).T
    exact = rows.astype(np.float64) @ columns.astype(np.float64)
    found = (back @ sums @ back.T).transpose(0, 2, 3, 1).reshape(-1, 16)
    return float(np.std(found - exact)), float(np.std(rows @ columns - exact))


@pytest.mark.parametrize(
    ("m", "r"), [(m, r) for m in range(2, 8) for r in range(2, 8) if m + r < 10]
)
def test_rounding_errors_are_those_stated(m: int, r: int) -> None:
    found, direct = float32_errors(m, r)
    assert found / direct <= AMPLIFICATION[m + r - 1] ** 2


def test_precise_points_halve_the_errors_of_f4(monkeypatch: pytest.MonkeyPatch) -> None:
    precise, _ = float32_errors(4, 3)
    monkeypatch.setattr(matrices, "_PRECISE_POINTS", {})
    winograd_matrices.cache_clear()
    plain, _ = float32_errors(4, 3)
    winograd_matrices.cache_clear()
    assert precise < plain / 2
