"""Keeping the sum of errors within a budget by giving errors a price in seconds.

Choices that minimise seconds + price * error trade one for the other alike everywhere: the price is
the multiplier of Lagrange's method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Choice = TypeVar("Choice")

_PRICES = (0.25, 4096.0)
"""Range of what a relative error of one is worth in seconds; at 8, saving 1e-6 is worth 8 us."""

_HALVINGS = 6
"""Of that range, on a scale of ratios."""


def cheapest_within(
    budget: float, at_price: Callable[[float], Choice], error: Callable[[Choice], float]
) -> Choice:
    """The choice at the lowest price for errors at which they stay within the budget.

    Parameters
    ----------
    at_price : the best choice at a price, in seconds for a relative error of one.
    error : what the errors of a choice sum up to; where even the highest price does not bring it
        below the budget, there is no choice that does, and the one at that price is returned.
    """
    free = at_price(0.0)
    if error(free) <= budget:
        return free
    low, high = _PRICES
    best = at_price(high)
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        chosen = at_price(middle)
        if error(chosen) <= budget:
            best, high = chosen, middle
        else:
            low = middle
    return best
