"""The solver against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mnnpy.runtime.preinference.pbqp import solve_pbqp

Edges = dict[tuple[int, int], np.ndarray]  # type: ignore[type-arg]


def total(costs: list[np.ndarray], edges: Edges, choices: tuple[int, ...]) -> float:  # type: ignore[type-arg]
    own = sum(float(c[choice]) for c, choice in zip(costs, choices, strict=True))
    return own + sum(float(m[choices[u], choices[v]]) for (u, v), m in edges.items())


def problem(
    seed: int, count: int, pairs: list[tuple[int, int]], forbidden: float = 0.0
) -> tuple[list[np.ndarray], Edges]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, count)
    edges = {(u, v): rng.random((sizes[u], sizes[v])) for u, v in pairs}
    for matrix in edges.values():
        matrix[rng.random(matrix.shape) < forbidden] = 1e6
    return [rng.random(size) for size in sizes], edges


def random_pairs(seed: int, count: int, density: float) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(u, v) for u in range(count) for v in range(u + 1, count) if rng.random() < density]


SHAPES = {
    "no edges": (4, []),
    "chain": (7, [(i, i + 1) for i in range(6)]),
    "backward chain": (7, [(i + 1, i) for i in range(6)]),
    "tree": (7, [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)]),
    "ring": (6, [(i, (i + 1) % 6) for i in range(6)]),
    "ladder": (8, [(i, i + 2) for i in range(6)] + [(0, 1), (6, 7)]),
    "diamonds": (7, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)]),
}
"""Graphs that reductions of degree 0, 1 and 2 solve."""


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shape", SHAPES)
def test_exact_reductions_find_the_optimum(shape: str, seed: int) -> None:
    count, pairs = SHAPES[shape]
    costs, edges = problem(seed, count, pairs, forbidden=0.2)
    choices, exact = solve_pbqp(costs, edges)
    best = min(total(costs, edges, c) for c in product(*(range(len(v)) for v in costs)))
    assert exact
    assert total(costs, edges, tuple(choices)) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(60))
def test_exact_means_optimal(seed: int) -> None:
    count = 3 + seed % 5
    costs, edges = problem(seed, count, random_pairs(seed, count, 0.2 + 0.1 * (seed % 8)))
    choices, exact = solve_pbqp(costs, edges)
    best = min(total(costs, edges, c) for c in product(*(range(len(v)) for v in costs)))
    found = total(costs, edges, tuple(choices))
    assert found >= best - 1e-12
    if exact:
        assert found == pytest.approx(best)
    else:
        assert found <= best + 0.5 * len(edges), "a heuristic choice costs at most a few edges"


def test_dense_parts_of_different_degree() -> None:
    """Every variable is reduced, whichever dense part the heuristic works on first."""
    pairs = [(u, v) for u in range(20) for v in range(u + 1, 20)]
    pairs += [(20 + u, 20 + v) for u in range(4) for v in range(u + 1, 4)]
    costs, edges = problem(1, 24, pairs)
    choices, exact = solve_pbqp(costs, edges)
    assert not exact
    assert all(0 <= choice < len(cost) for choice, cost in zip(choices, costs, strict=True))


def test_ties_go_to_the_first_choice() -> None:
    costs = [np.zeros(3) for _ in range(5)]
    edges = {(i, i + 1): np.zeros((3, 3)) for i in range(4)}
    assert solve_pbqp(costs, edges) == ([0] * 5, True)


def test_inputs_are_left_alone() -> None:
    costs, edges = problem(0, 5, random_pairs(0, 5, 0.9))
    before = [c.copy() for c in costs], {k: m.copy() for k, m in edges.items()}
    solve_pbqp(costs, edges)
    assert all(np.array_equal(a, b) for a, b in zip(costs, before[0], strict=True))
    assert all(np.array_equal(edges[k], before[1][k]) for k in edges)
