"""Samples of large products of parameters that still meet every pair of values."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Case = dict[str, Any]


def pairwise(
    parameters: Mapping[str, Sequence[Any]], valid: Callable[[Case], bool], seed: int = 0
) -> list[Case]:
    """Cases that together contain every pair of values of two parameters that some case allows.

    Parameters
    ----------
    parameters : name -> values to choose from.
    valid : whether a case makes sense; pairs that no valid case was found for are left out.
    """
    rng = random.Random(seed)
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(parameters, 2)
        for i in range(len(parameters[a]))
        for j in range(len(parameters[b]))
    }
    cases: list[Case] = []
    for wanted in sorted(missing):
        if wanted not in missing:
            continue
        best: tuple[int, dict[str, int]] = (0, {})
        for _ in range(40):
            drawn = {name: rng.randrange(len(values)) for name, values in parameters.items()}
            drawn |= dict(wanted)
            if valid({name: parameters[name][i] for name, i in drawn.items()}):
                best = max(best, (len(missing & _pairs(drawn)), drawn), key=lambda entry: entry[0])
        if best[0]:
            missing -= _pairs(best[1])
            cases.append({name: parameters[name][i] for name, i in best[1].items()})
    return cases


def product(parameters: Mapping[str, Sequence[Any]], valid: Callable[[Case], bool]) -> list[Case]:
    """Every case that makes sense."""
    drawn = itertools.product(*parameters.values())
    cases = [dict(zip(parameters, values, strict=True)) for values in drawn]
    return [case for case in cases if valid(case)]


def _pairs(drawn: Mapping[str, int]) -> set[tuple[tuple[str, int], tuple[str, int]]]:
    return set(itertools.combinations(drawn.items(), 2))  # type: ignore[arg-type]
