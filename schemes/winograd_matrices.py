"""Transform matrices of Winograd's minimal filtering F(m, r), built exactly for any small m and r.

Source: S. Winograd, *Arithmetic Complexity of Computations*, 1980; A. Lavin and S. Gray, *Fast
Algorithms for Convolutional Neural Networks*, CVPR 2016. The construction is Toom-Cook with the
point at infinity: interpolate the product of two polynomials from its values, then transpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import numpy as np

from mnnpy.runtime.graph.types import Array

Matrix = list[list[Fraction]]

_POINTS = tuple(
    Fraction(point)
    for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-4", "1/4", "-1/4", "3", "-3")
)
_PRECISE_POINTS = {
    count: tuple(map(Fraction, points))
    for count, points in {
        4: ("0", "1", "-1/2", "-2"),
        5: ("0", "2/3", "-2/3", "3/2", "-3/2"),
        6: ("0", "1", "-1", "1/2", "-1/2", "-3"),
    }.items()
}
"""Numbers of points for which the first ones are not the best: with these F(4, 3) rounds less than
half as much in the root mean square of random data, in two dimensions. Pairs of a point and its
inverse are what Barabasz et al., *Error Analysis and Improving the Accuracy of Winograd Convolution
for Deep Neural Networks*, ACM TOMS 2020, found to keep errors low; these are the best of a search
over small fractions."""
MAX_TILE = len(_POINTS) + 1


@cache
def winograd_matrices(m: int, r: int) -> tuple[Array, Array, Array]:
    """Matrices (A', G, B') with ``y = A' ((G g) * (B' d))`` for m outputs of an r-tap filter.

    Shapes (m, a), (a, r), (a, a) with a = m + r - 1, float64. Each row of B' is made whole and the
    factor taken out of G, which changes nothing in exact arithmetic and keeps B' cheap and exact.

    Raises
    ------
    ValueError
        Where ``m`` or ``r`` is below 1 or a is beyond ``MAX_TILE``.
    """
    a = m + r - 1
    if m < 1 or r < 1 or a > MAX_TILE:
        raise ValueError(f"F({m}, {r}) is outside 1 <= m, r and m + r - 1 <= {MAX_TILE}")
    points = _PRECISE_POINTS.get(a - 1, _POINTS[: a - 1])
    evaluate_filter = [_powers(p, r) for p in points] + [_infinity(r)]
    evaluate_output = [_powers(p, m) for p in points] + [_infinity(m)]
    interpolate = _inverse([_powers(p, a) for p in points] + [_infinity(a)])
    data = _transposed(interpolate)
    for row, filter_row in zip(data, evaluate_filter, strict=True):
        shared = Fraction(_common(row))
        row[:] = [value * shared for value in row]
        filter_row[:] = [value / shared for value in filter_row]
    return (
        _as_array(_transposed(evaluate_output)),
        _as_array(evaluate_filter),
        _as_array(data),
    )


def _powers(point: Fraction, count: int) -> list[Fraction]:
    return [point**power for power in range(count)]


def _infinity(count: int) -> list[Fraction]:
    """Evaluation at infinity reads the leading coefficient."""
    return [Fraction(int(power == count - 1)) for power in range(count)]


def _common(row: Sequence[Fraction]) -> int:
    """Least number that makes every entry whole."""
    return int(np.lcm.reduce([value.denominator for value in row]))


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _inverse(matrix: Matrix) -> Matrix:
    """Gauss-Jordan elimination over the rationals."""
    size = len(matrix)
    rows = [row[:] + [Fraction(int(i == j)) for j in range(size)] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        leading = rows[column][column]
        rows[column] = [value / leading for value in rows[column]]
        for row in range(size):
            factor = rows[row][column]
            if row != column and factor:
                rows[row] = [x - factor * y for x, y in zip(rows[row], rows[column], strict=True)]
    return [row[size:] for row in rows]


def _as_array(matrix: Matrix) -> Array:
    return np.array([[float(value) for value in row] for row in matrix], dtype=np.float64)
