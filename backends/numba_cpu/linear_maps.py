"""Multiplying a few vectors in registers by a small constant matrix, sharing what is symmetric.

Winograd's matrices come from points +p and -p: their rows (of the data transform) or columns (of
the output transform) agree in every second entry and differ in sign in the others, so that sums of
the even and of the odd entries serve both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnnpy.backends.numba_cpu.ir import Function, Value
from mnnpy.runtime.graph.types import Array


def apply_matrix(f: Function, matrix: Array, vectors: Sequence[Value]) -> list[Value]:
    """``matrix @ vectors``, one value per row."""
    columns = _mirrored(matrix.T)
    if columns:
        matrix, vectors = _fold_columns(f, matrix, list(vectors), columns)
    rows = _mirrored(matrix)
    results: list[Value | None] = [None] * len(matrix)
    for first, second in rows:
        even, odd = matrix[first].copy(), matrix[first].copy()
        even[1::2], odd[0::2] = 0, 0
        a, b = _combine(f, even, vectors), _combine(f, odd, vectors)
        results[first] = f.arithmetic("fadd", a, b)
        results[second] = f.arithmetic("fsub", a, b)
    return [
        _combine(f, matrix[row], vectors) if result is None else result
        for row, result in enumerate(results)
    ]


def _mirrored(rows: Array) -> list[tuple[int, int]]:
    """Pairs of rows that agree in even entries and differ in sign in odd ones, not trivially."""
    pairs: list[tuple[int, int]] = []
    used: set[int] = set()
    signs = np.where(np.arange(rows.shape[1]) % 2, -1.0, 1.0)
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            mixed = rows[i, 0::2].any() and rows[i, 1::2].any()
            if mixed and not {i, j} & used and np.array_equal(rows[i] * signs, rows[j]):
                pairs.append((i, j))
                used |= {i, j}
    return pairs


def _fold_columns(
    f: Function, matrix: Array, vectors: list[Value], pairs: Sequence[tuple[int, int]]
) -> tuple[Array, list[Value]]:
    """Replace mirrored columns by their vectors' sum (for even rows) and difference (for odd)."""
    matrix = matrix.copy()
    for first, second in pairs:
        a, b = vectors[first], vectors[second]
        vectors[first] = f.arithmetic("fadd", a, b)
        vectors[second] = f.arithmetic("fsub", a, b)
        column = matrix[:, first].copy()
        matrix[:, first], matrix[:, second] = 0, 0
        matrix[0::2, first] = column[0::2]
        matrix[1::2, second] = column[1::2]
    return matrix, vectors


def _combine(f: Function, factors: Array, vectors: Sequence[Value]) -> Value:
    """Sum of factor times vector; ones cost an addition only."""
    total: Value | None = None
    for factor, vector in sorted(
        zip(factors.tolist(), vectors, strict=True), key=lambda entry: abs(entry[0]) != 1
    ):
        if factor == 0:
            continue
        if total is None:
            total = vector if factor == 1 else f.arithmetic("fmul", vector, f.constant(factor))
        elif abs(factor) == 1:
            total = f.arithmetic("fadd" if factor == 1 else "fsub", total, vector)
        else:
            total = f.multiply_add(vector, f.constant(factor), total)
    return f.constant(0.0) if total is None else total
