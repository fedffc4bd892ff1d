"""Elementwise operators, alone and in place; concatenations and views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops import logic
from mnnpy.runtime.ops.shaping import Flatten
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.schemes.concat import ConcatInPlace
from mnnpy.schemes.elementwise import ElementwiseInPlace
from mnnpy.schemes.view import View
from tests.schemes.cases import (
    Buffers,
    check,
    error,
    kernels,
    normal,
    poisoned,
    run,
    task_of,
    widened,
)

UNARY: tuple[Op, ...] = (
    *(op() for op in (ew.Abs, ew.Neg, ew.Exp, ew.Sqrt, ew.Reciprocal, ew.Floor, ew.Ceil, ew.Round)),
    *(op() for op in (ew.Sign, ew.Erf, ew.Sin, ew.Cos, ew.Atan, ew.Sinh, ew.Cosh, ew.Asinh)),
    *(op() for op in (ew.Log, ew.Tan, ew.Asin, ew.Acos, ew.Atanh, ew.Identity)),
    *(op() for op in (act.Relu, act.Sigmoid, act.Tanh, act.Softplus, act.Softsign, act.Mish)),
    *(op() for op in (act.LeakyRelu, act.Elu, act.Selu, act.Celu, act.HardSigmoid)),
    *(op() for op in (act.HardSwish, act.Gelu, act.ThresholdedRelu)),
    act.LeakyRelu(0.3),
    act.HardSigmoid(0.3, 0.1),
)
BINARY: tuple[Op, ...] = (ew.Add(), ew.Sub(), ew.Mul(), ew.Div(), ew.Max(), ew.Min(), ew.Sum())
SHAPES = ((), (1,), (17,), (3, 1, 5), (2, 3, 4, 5), (0, 3))
INSIDE = {"Log", "Asin", "Acos", "Atanh", "Sqrt", "Tan"}
"""Operators of numbers between 0 and 1 only."""


def numbers(op: Op, seed: int, *shape: int) -> Any:
    if op.kind in INSIDE:
        return np.random.default_rng(seed).uniform(0.05, 0.95, shape).astype(np.float32)
    return normal(seed, *shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", UNARY, ids=repr)
def test_unary(op: Op, shape: tuple[int, ...]) -> None:
    assert "elementwise" in check(op, [numbers(op, 1, *shape)])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((), ()),
        ((2, 3), (2, 3)),
        ((2, 3), ()),
        ((), (2, 3)),
        ((2, 1, 4), (3, 1)),
        ((1,), (5,)),
        ((0, 3), (3,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("op", BINARY, ids=repr)
def test_binary(op: Op, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert "elementwise" in check(op, [normal(1, *a), normal(2, *b)])


@pytest.mark.parametrize("op", [ew.Add(), ew.Sub(), ew.Mul(), ew.Div(), ew.Max()], ids=repr)
@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.float16, np.float64])
def test_other_types(op: Op, dtype: Any) -> None:
    a = np.array([[7, 100, 3], [5, 1, 90]]).astype(dtype)
    b = np.array([[2, 3, 1]]).astype(dtype)
    check(op, [a, b], tolerance=1e-3 if dtype == np.float16 else 1e-15)


@pytest.mark.parametrize(
    "op",
    [logic.Equal(), logic.Greater(), logic.GreaterOrEqual(), logic.Less(), logic.LessOrEqual()],
    ids=repr,
)
def test_comparisons(op: Op) -> None:
    a, b = np.round(normal(1, 4, 5)), np.round(normal(2, 5))
    assert np.array_equal(*(_outputs(op, [a, b])))


def _outputs(op: Op, arrays: list[Any]) -> tuple[Any, Any]:
    task = task_of(op, arrays)
    kernel, config = next(k for k in kernels(task) if k[0].scheme == "elementwise")
    return run(kernel, config, task, arrays)[0], op.reference(np, *arrays)[0]


CLIPS = [
    [normal(1, 3, 4), np.float32(-0.5), np.float32(0.5)],
    [normal(1, 3, 4), np.float32(-0.5)],
    [normal(1, 3, 4), None, np.float32(0.5)],
    [np.float32(2), np.float32(-0.5), np.float32(0.5)],
    [np.arange(-3, 3), np.int64(-1), np.int64(2)],
]


@pytest.mark.parametrize("arrays", CLIPS, ids=len)
def test_clip(arrays: list[Any]) -> None:
    assert check(act.Clip(), [None if a is None else np.asarray(a) for a in arrays])


IN_PLACE: list[tuple[Op, list[tuple[int, ...]]]] = [(op, [(3, 5)]) for op in UNARY]
IN_PLACE += [(op, [(3, 5), (3, 5)]) for op in BINARY]
IN_PLACE += [(op, [(3, 5), (5,)]) for op in BINARY]
IN_PLACE += [(op, [(1, 5), (3, 5)]) for op in BINARY]
IN_PLACE += [(act.Clip(), [(), (), ()]), (act.Clip(), [(3, 5), (), ()])]
IN_PLACE += [(ew.Sum(), [(3, 5), (3, 5), (3, 5)]), (ew.Max(), [(5,), (3, 5), (3, 5)])]
IN_PLACE += [(act.PRelu(), [(3, 5), (3, 5)])]


@pytest.mark.parametrize(("op", "shapes"), IN_PLACE, ids=str)
def test_every_input_that_may_be_overwritten(op: Op, shapes: list[tuple[int, ...]]) -> None:
    arrays = [numbers(op, i, *shape) for i, shape in enumerate(shapes)]
    task = task_of(op, arrays)
    expected = op.reference(np, *widened(arrays))[0]
    tried = 0
    for kernel, config in kernels(task):
        for position in kernel.inplace(task):
            (y,) = run(kernel, config, task, arrays, inplace=position)
            assert error(y, expected) <= 3e-6, f"{kernel.scheme}, input {position}"
            tried += 1
    assert tried


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("sizes", [(1,), (2, 3), (1, 0, 4, 2)])
def test_concat(axis: int, sizes: tuple[int, ...]) -> None:
    shapes = [[2, 3, 4] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[axis] = size
    arrays = [normal(i, *shape) for i, shape in enumerate(shapes)]
    assert check(Concat(axis), arrays, tolerance=0) == {"concat", "reference"}


def test_pieces_in_place_are_not_copied() -> None:
    arrays = [normal(0, 2, 3), normal(1, 1, 3), normal(2, 3, 3)]
    task = task_of(Concat(0), arrays)
    y = poisoned(task.output())
    y[:2] = 7
    workspace = np.empty(0, np.uint8)
    buffers = Buffers(tuple(arrays), (y,), workspace, aliased=frozenset({0}))
    ConcatInPlace().bind(np, task, (), buffers)()
    assert (y[:2] == 7).all()
    assert np.array_equal(y[2:], np.concatenate(arrays[1:]))


@pytest.mark.parametrize("aliased", [frozenset({0}), frozenset()])
def test_views(aliased: frozenset[int]) -> None:
    x = normal(0, 2, 3, 4)
    task = task_of(Flatten(1), [x])
    y = poisoned(task.output())
    View().bind(np, task, (), Buffers((x,), (y,), np.empty(0, np.uint8), aliased=aliased))()
    assert np.array_equal(y, x.reshape(2, 12)) is not bool(aliased)


def test_strings_are_refused() -> None:
    task = task_of(ew.Identity(), [np.array(["a"], object)])
    assert ElementwiseInPlace().reject(task) == "strings are Python objects"
