"""The lowest price for errors that keeps them within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mnnpy.runtime.preinference.error_budget import cheapest_within

STEPS = [[(10.0, 0.0), (8.0, 1e-5), (6.0, 4e-5)], [(20.0, 0.0), (14.0, 2e-5)], [(5.0, 0.0)]]
"""(time in 0.1 ms, error) of the candidates of three steps."""


def chosen_at(price: float) -> list[tuple[float, float]]:
    return [min(step, key=lambda c: c[0] * 1e-4 + price * c[1]) for step in STEPS]


def total_error(chosen: Sequence[tuple[float, float]]) -> float:
    return sum(error for _, error in chosen)


@pytest.mark.parametrize(
    ("budget", "time"),
    [(1.0, 25.0), (6.1e-5, 25.0), (3.5e-5, 27.0), (2e-5, 29.0), (1e-5, 35.0), (0.0, 35.0)],
)
def test_time_is_given_only_for_what_the_budget_lacks(budget: float, time: float) -> None:
    chosen = cheapest_within(budget, chosen_at, lambda c: c[1], lambda a, b: True)
    assert total_error(chosen) <= budget
    assert sum(spent for spent, _ in chosen) == time


@pytest.mark.parametrize(("budget", "exact"), [(1e-5, 0), (0.9e-5, 1), (0.35e-5, 7), (0.0, 10)])
def test_steps_alike_share_what_there_is(budget: float, exact: int) -> None:
    def at_price(price: float) -> list[tuple[float, float]]:
        return [min([(10.0, 0.0), (8.0, 1e-6)], key=lambda c: c[0] * 1e-4 + price * c[1])] * 10

    chosen = cheapest_within(budget, at_price, lambda c: c[1], lambda a, b: True)
    assert sum(error == 0 for _, error in chosen) == exact
    fixed = cheapest_within(budget, at_price, lambda c: c[1], lambda a, b: False)
    assert sum(error == 0 for _, error in fixed) in (0, 10)
