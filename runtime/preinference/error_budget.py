"""Keeping the sum of errors within a budget by giving errors a price in seconds.

Choices that minimise seconds + price * error trade one for the other alike everywhere: the price is
the multiplier of Lagrange's method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Candidate = TypeVar("Candidate")

_PRICES = (0.25, 4096.0)
"""Range of what a relative error of one is worth in seconds; at 8, saving 1e-6 is worth 8 us."""

_HALVINGS = 6
"""Of that range, on a scale of ratios."""


def cheapest_within(
    budget: float,
    at_price: Callable[[float], Sequence[Candidate]],
    error: Callable[[Candidate], float],
    exchangeable: Callable[[Candidate, Candidate], bool],
) -> Sequence[Candidate]:
    """The choices at the lowest price for errors at which their sum stays within the budget.

    Many steps alike give up their errors at the same price. Those whose errors fit what is then
    left of the budget keep them.

    Parameters
    ----------
    at_price : the best choices, one per step, at a price in seconds for a relative error of one.
    error : of one choice; where even the highest price does not bring the sum below the budget,
        no choices do, and those at that price are returned.
    exchangeable : whether one choice for a step can stand for another, whatever its neighbours are.
    """
    wanted = at_price(0.0)
    if sum(map(error, wanted)) <= budget:
        return wanted
    low, high = _PRICES
    best = at_price(high)
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        chosen = at_price(middle)
        if sum(map(error, chosen)) <= budget:
            best, high = chosen, middle
        else:
            wanted, low = chosen, middle
    left = budget - sum(map(error, best))
    filled: list[Candidate] = []
    for kept, given_up in zip(best, wanted, strict=True):
        more = error(given_up) - error(kept)
        takes = 0 < more <= left and exchangeable(kept, given_up)
        left -= more if takes else 0.0
        filled.append(given_up if takes else kept)
    return filled
