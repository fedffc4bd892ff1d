"""Partitioned boolean quadratic problems: one choice per variable, costs on choices and on pairs.

Source: Scholz and Eckstein, *Register Allocation for Irregular Architectures*, 2002; used for
layout selection by Anderson and Gregg, *Optimal DNN Primitive Selection with Partitioned Boolean
Quadratic Programming*, CGO 2018. Variables of degree 0, 1 and 2 are reduced exactly; for the rest
the variable of largest degree takes the choice that looks best locally. Ties go to the lower index,
so that equal inputs give equal solutions.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def solve_pbqp(
    costs: Sequence[Vector], edges: Mapping[tuple[int, int], Matrix]
) -> tuple[list[int], bool]:
    """Choice per variable of (nearly) least total cost.

    Parameters
    ----------
    costs : one vector per variable.
    edges : (u, v) -> matrix of shape (choices of u, choices of v).

    Returns
    -------
    The choices, and whether only exact reductions were used (the solution is then optimal).
    """
    return _Problem(costs, edges).solve()


class _Problem:
    def __init__(self, costs: Sequence[Vector], edges: Mapping[tuple[int, int], Matrix]) -> None:
        self.costs = [np.asarray(vector, dtype=np.float64).copy() for vector in costs]
        self.edges: list[dict[int, Matrix]] = [{} for _ in costs]
        for (u, v), matrix in edges.items():
            self._add_edge(u, v, np.asarray(matrix, dtype=np.float64))
        self.alive = [True] * len(costs)
        self.queue = [(len(near), u) for u, near in enumerate(self.edges)]
        heapq.heapify(self.queue)
        self.order: list[tuple[int, dict[int, Matrix], Vector]] = []
        self.exact = True

    def solve(self) -> tuple[list[int], bool]:
        remaining = len(self.costs)
        while remaining:
            degree, u = heapq.heappop(self.queue)
            if not self.alive[u] or degree != len(self.edges[u]):
                continue
            if degree > 2:
                self.exact = False
                heapq.heappush(self.queue, (degree, u))
                u = self._busiest()
            self._reduce(u)
            remaining -= 1
        return self._back_substitute(), self.exact

    def _reduce(self, u: int) -> None:
        near = dict(self.edges[u])
        self.order.append((u, near, self.costs[u].copy()))
        if len(near) == 1:
            ((v, matrix),) = near.items()
            self.costs[v] += np.min(self.costs[u][:, None] + matrix, axis=0)
        elif len(near) == 2:
            (v, to_v), (w, to_w) = sorted(near.items())
            sums = self.costs[u][:, None, None] + to_v[:, :, None] + to_w[:, None, :]
            self._add_edge(v, w, sums.min(axis=0))
        elif near:
            local = self.costs[u].copy()
            for v, matrix in near.items():
                local += np.min(matrix + self.costs[v][None, :], axis=1)
            choice = int(np.argmin(local))
            fixed = np.full(len(local), np.inf)
            fixed[choice] = self.costs[u][choice]
            self.order[-1] = (u, near, fixed)
            for v, matrix in near.items():
                self.costs[v] += matrix[choice]
        self._remove(u)

    def _remove(self, u: int) -> None:
        self.alive[u] = False
        for v in self.edges[u]:
            del self.edges[v][u]
            heapq.heappush(self.queue, (len(self.edges[v]), v))
        self.edges[u] = {}

    def _add_edge(self, u: int, v: int, matrix: Matrix) -> None:
        if u == v:
            self.costs[u] += np.diagonal(matrix)
            return
        known = self.edges[u].get(v)
        total = matrix if known is None else known + matrix
        self.edges[u][v] = total
        self.edges[v][u] = total.T

    def _busiest(self) -> int:
        degrees = [len(near) if self.alive[u] else -1 for u, near in enumerate(self.edges)]
        return int(np.argmax(degrees))

    def _back_substitute(self) -> list[int]:
        choices = [0] * len(self.costs)
        for u, near, costs in reversed(self.order):
            total = costs.copy()
            for v, matrix in near.items():
                total += matrix[:, choices[v]]
            choices[u] = int(np.argmin(total))
        return choices
