"""Arithmetic on dimensions that may be symbolic."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnnpy.runtime.graph.dims import Dim, SymbolicDim, UndecidedError, differ, is_static, same

H, W = SymbolicDim.named("h"), SymbolicDim.named("w")


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (H, "h"),
        (H + 1, "h + 1"),
        (1 + H, "h + 1"),
        (H - 1, "h - 1"),
        (1 - H, "-1*h + 1"),
        (2 * H + W, "2*h + w"),
        (H + W - W, "h"),
        ((2 * H + 4) // 2, "h + 2"),
        ((H + 1) // 2, "floor((h + 1)/(2))"),
        ((2 * H + 1) // H, "floor((2*h + 1)/(h))"),
        (H * W, "(h)*(w)"),
        (W * H, "(h)*(w)"),
        (7 // H, "floor(7/(h))"),
        (-(-H // 2), "-1*floor((-1*h)/(2))"),
    ],
)
def test_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


@pytest.mark.parametrize(
    ("dim", "number"),
    [
        (H - H, 0),
        (0 * H, 0),
        (H // H, 1),
        ((20 * H) // H, 20),
        ((4 * H + 6 * W) // (2 * H + 3 * W), 2),
        ((H + 3) - H, 3),
        (0 // H, 0),
        ((4 * H) % 2, 0),
    ],
)
def test_numbers_come_out_as_numbers(dim: Dim, number: int) -> None:
    assert type(dim) is int
    assert dim == number


@pytest.mark.parametrize(
    "question",
    [
        lambda: H < 3,
        lambda: H >= 3,
        lambda: bool(H),
        lambda: int(H),
        lambda: [0][H],
        lambda: float(H),
        lambda: same(H, W),
        lambda: same(H, 2),
        lambda: same(2 * H, H),
    ],
)
def test_what_only_numbers_decide(question: Callable[[], object]) -> None:
    with pytest.raises(UndecidedError):
        question()


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [(H, H, True), (H + 1, H, False), (H + W, H, None), (H + W + 1, H, False), (3, 3, True)],
)
def test_same(a: Dim, b: Dim, equal: bool | None) -> None:
    if equal is None:
        with pytest.raises(UndecidedError):
            same(a, b)
    else:
        assert same(a, b) is equal


def test_equal_forms_are_equal_and_hash_alike() -> None:
    assert H + W == W + H
    assert hash(H + W) == hash(W + H)
    assert differ(2, 3)
    assert not differ(H, 3)
    assert is_static((1, 2))
    assert not is_static((1, H))


linear = st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(-9, 9))


@given(linear, linear, st.integers(0, 50), st.integers(0, 50))
def test_linear_forms_agree_with_numbers(
    p: tuple[int, int, int], q: tuple[int, int, int], h: int, w: int
) -> None:
    for combine in (operator.add, operator.sub):
        form = combine(p[0] * H + p[1] * W + p[2], q[0] * H + q[1] * W + q[2])
        expected = combine(p[0] * h + p[1] * w + p[2], q[0] * h + q[1] * w + q[2])
        assert _at(form, h, w) == expected


@given(linear, st.integers(1, 6), st.integers(0, 50), st.integers(0, 50))
def test_exact_division(p: tuple[int, int, int], divisor: int, h: int, w: int) -> None:
    form = (p[0] * H + p[1] * W + p[2]) * divisor
    assert _at(form // divisor, h, w) == p[0] * h + p[1] * w + p[2]


def _at(dim: Dim, h: int, w: int) -> int:
    if isinstance(dim, int):
        return dim
    return sum({"h": h, "w": w}[symbol] * factor for symbol, factor in dim.terms) + dim.constant
