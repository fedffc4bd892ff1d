"""Ways to damage what a model is fed."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
Damage: TypeAlias = Callable[[Array, random.Random], Any]

DTYPES = (
    *("float16", "float32", "float64", "complex64", "bool", "object", "datetime64[s]", "S3"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "U2", "V4"),
)
INTEGERS = (-(2**63), -(2**31), -100, -1, 0, 1, 2, 100, 2**20, 2**31, 2**40, 2**63 - 1)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38)
HUGE = (1000, 2**31, 2**40)


class Pretender:
    """Says that it is an array, and fails when asked for it."""

    shape = (1,)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array after all")


def other_dtype(x: Array, rng: random.Random) -> Any:
    return np.zeros(x.shape, dtype=rng.choice(DTYPES))


def other_rank(x: Array, rng: random.Random) -> Any:
    return rng.choice((x[None], x.reshape(-1), x.sum() if x.dtype != object else x, x[..., None]))


def other_size(x: Array, rng: random.Random) -> Any:
    """One axis longer, shorter or empty."""
    if not x.ndim:
        return x
    axis = rng.randrange(x.ndim)
    count = rng.choice((0, 1, max(x.shape[axis] - 1, 0), x.shape[axis] + 1, 17))
    return np.resize(x, (*x.shape[:axis], count, *x.shape[axis + 1 :])).astype(x.dtype)


def huge(x: Array, rng: random.Random) -> Any:
    """An axis of absurd size that takes no memory, its stride being zero."""
    if not x.ndim or not x.size:
        return x
    axis = rng.randrange(x.ndim)
    shape = (*x.shape[:axis], rng.choice(HUGE), *x.shape[axis + 1 :])
    try:
        return np.broadcast_to(x.reshape(-1)[0], shape)
    except ValueError:
        return x


def odd_numbers(x: Array, rng: random.Random) -> Any:
    """NaN, infinities, zeros and the ends of the range, at some places or at all."""
    if not x.size or x.dtype == object:
        return x
    changed = x.copy().reshape(-1)
    places = range(x.size) if rng.random() < 0.3 else [rng.randrange(x.size) for _ in range(3)]
    for place in places:
        with np.errstate(all="ignore"):
            values = FLOATS if x.dtype.kind not in "iub" else INTEGERS
            changed[place] = np.asarray(rng.choice(values)).astype(x.dtype)
    return changed.reshape(x.shape)


def strided(x: Array, rng: random.Random) -> Any:
    """The same content in memory that is not contiguous, of another byte order, or read-only."""
    turn = rng.randrange(4)
    if turn == 0:
        wide = np.zeros((*x.shape, 2), x.dtype)
        wide[..., 0] = x
        return wide[..., 0]
    if turn == 1:
        return np.asfortranarray(x)
    if turn == 2 and x.dtype.kind in "iuf" and x.dtype.itemsize > 1:
        return x.astype(x.dtype.newbyteorder(">"))
    x = x.copy()
    x.flags.writeable = False
    return x[::-1] if x.ndim else x


def no_array(x: Array, rng: random.Random) -> Any:
    return rng.choice(
        (
            *(None, 1, 2**70, -1.5, "text", b"bytes", "", [], (), {}, {"a": 1}, set(), range(3)),
            *(object(), Pretender(), Decimal("1.5"), [[1, 2], [3]], [None], [[[]]], ["a", 1], int),
            *(memoryview(b"abcd"), np.ma.masked_array([1.0], [True]), (n for n in range(2))),
            *(x.tolist(), [x, x], np.array(None), np.array([object()]), np.array("text"), 1j),
        )
    )


DAMAGES: tuple[Damage, ...] = (
    other_dtype,
    other_rank,
    other_size,
    huge,
    odd_numbers,
    strided,
    no_array,
)


def damaged(feeds: dict[str, Any], rng: random.Random) -> Any:
    """Feeds with one or two values damaged, or damaged as a whole."""
    if not feeds or rng.random() < 0.1:
        wholes: tuple[Any, ...] = (None, {}, [], list(feeds.values()), {**feeds, "extra": 1}, "x")
        return rng.choice((*wholes, {1: 2}, feeds.keys(), *feeds.values()))
    changed = dict(feeds)
    for name in rng.sample(sorted(feeds), min(len(feeds), rng.choice((1, 1, 2)))):
        damage = rng.choice(DAMAGES)
        changed[name] = damage(feeds[name], rng) if isinstance(feeds[name], np.ndarray) else 1
    if rng.random() < 0.05:
        del changed[rng.choice(sorted(changed))]
    return changed
