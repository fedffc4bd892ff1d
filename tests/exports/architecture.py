"""An architecture to export: how to build it, what it reads, and at which sizes it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Fill = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Sizes = Mapping[str, int]
Domain = Literal["vision", "detection", "language", "speech", "other"]
Variant = Literal["float16", "dynamic int8", "static QDQ"]

EXPORTERS = ("torchscript", "dynamo")


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def uniform(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.random(shape, dtype=np.float32)


def ids(count: int, first: int = 0) -> Fill:
    """Whole numbers from ``first`` up to ``count``, as of tokens."""
    return lambda random, shape: random.integers(first, count, shape)


def mask(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """1 where a sequence has tokens, 0 in a padding of random length behind them."""
    lengths = random.integers(shape[-1] // 2, shape[-1] + 1, (*shape[:-1], 1))
    return (np.arange(shape[-1]) < lengths).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Input:
    """One input.

    Parameters
    ----------
    dims : its dimensions as words: a number is fixed, a name may change ("batch 3 height width").
    """

    dims: str
    fill: Fill = normal

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(int(d) if d.isdigit() else sizes[d] for d in self.dims.split())

    @property
    def dynamic(self) -> dict[int, str]:
        """Axis -> name of every dimension that may change."""
        return {i: d for i, d in enumerate(self.dims.split()) if not d.isdigit()}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row of the table.

    Parameters
    ----------
    build : makes the module; the weights come from torch's generator, which is seeded before.
    inputs : by the name of the parameter of ``forward``, in its order.
    sizes : numbers for the named dimensions; it is exported with the first and run with all.
    by_name : whether ``forward`` is to get its inputs by name.
    variants : what is also made of it, each with a tolerance of its own.
    """

    name: str
    domain: Domain
    build: Callable[[], Any]
    inputs: Mapping[str, Input]
    sizes: Sequence[Sizes]
    by_name: bool = False
    variants: Sequence[Variant] = ()

    def feeds(self, sizes: Sizes, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {name: i.fill(random, i.shape(sizes)) for name, i in self.inputs.items()}
