"""Every convolution scheme against the reference, over odd shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from tests.pairwise import Case, pairwise, product
from tests.schemes.cases import GRAINS, check, kernels, normal, task_of

Array = np.ndarray[Any, Any]

CHANNELS = (1, 3, 15, 16, 17, 33)
SIZES = (1, 2, 7, 13)
KERNELS = ((1, 1), (3, 3), (1, 3), (3, 1), (5, 5), (1, 7), (7, 1), (2, 2), (2, 3))
PADS = ("none", "same", "asymmetric", "wide")
GROUPS = ("one", "two", "depthwise", "multiplied")

PARAMETERS = {
    "batch": (1, 2, 3),
    "c": CHANNELS,
    "k": CHANNELS,
    "height": SIZES,
    "width": SIZES,
    "kernel": KERNELS,
    "pads": PADS,
    "strides": ((1, 1), (2, 2), (2, 1), (3, 1)),
    "dilations": ((1, 1), (2, 2), (1, 2)),
    "groups": GROUPS,
    "weights": ("constant", "computed"),
}

PLAIN = {"strides": ((1, 1),), "dilations": ((1, 1),)}
SAMPLES = {
    "any": PARAMETERS,
    "one group, no strides": PARAMETERS | PLAIN | {"groups": ("one",)},
    "depthwise": PARAMETERS | {"groups": ("depthwise", "multiplied")},
    "pointwise": PARAMETERS | PLAIN | {"kernel": ((1, 1),), "groups": ("one",), "pads": ("none",)},
}
"""Samples of their own for what only some schemes take."""

FEWER = PARAMETERS | {
    "batch": (1, 2),
    "c": (1, 3, 17),
    "k": (1, 16),
    "height": (2, 7),
    "width": (1, 13),
    "strides": ((1, 1), (2, 1)),
    "dilations": ((1, 1), (1, 2)),
}


def pads(case: Case) -> tuple[int, ...]:
    extent = [(r - 1) * d + 1 for r, d in zip(case["kernel"], case["dilations"], strict=True)]
    if case["pads"] == "same":
        return (*((e - 1) // 2 for e in extent), *(e // 2 for e in extent))
    return {"none": (0, 0, 0, 0), "asymmetric": (1, 0, 2, 3), "wide": (3, 4, 5, 2)}[case["pads"]]


def fits(case: Case) -> bool:
    """Whether the padded input is at least as large as the dilated kernel."""
    top, left, bottom, right = pads(case)
    height = case["height"] + top + bottom - (case["kernel"][0] - 1) * case["dilations"][0]
    width = case["width"] + left + right - (case["kernel"][1] - 1) * case["dilations"][1]
    return height > 0 and width > 0


def convolution(case: Case) -> tuple[Conv, Array, Array, Array]:
    """Operator, input, weights and bias of a case."""
    c, k = case["c"], case["k"]
    group = 1
    if case["groups"] == "two":
        c, k, group = 2 * c, 2 * k, 2
    elif case["groups"] != "one":
        group, k = c, c * (2 if case["groups"] == "multiplied" else 1)
    op = Conv(case["strides"], pads(case), case["dilations"], group)
    x = normal(1, case["batch"], c, case["height"], case["width"])
    return op, x, normal(2, k, c // group, *case["kernel"]), normal(3, k)


def identity(case: Case) -> str:
    return "-".join(str(value).replace(" ", "") for value in case.values())


def check_convolution(case: Case, grains: tuple[int, ...] = GRAINS) -> set[str]:
    op, x, w, bias = convolution(case)
    constants = (1, 2) if case["weights"] == "constant" else ()
    return check(op, [x, w, bias], constants, grains=grains)


CASES = [case for parameters in SAMPLES.values() for case in pairwise(parameters, fits)]


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_pairs_of_parameters(case: Case) -> None:
    assert check_convolution(case)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("groups", GROUPS)
def test_all_products(kernel: tuple[int, int], groups: str) -> None:
    for case in product(FEWER | {"kernel": (kernel,), "groups": (groups,)}, fits):
        assert check_convolution(case, (4096,)), case


def test_every_scheme_is_met() -> None:
    """The sample reaches all convolution schemes and all Winograd tiles."""
    met: set[tuple[str, object]] = set()
    for case in CASES:
        op, x, w, bias = convolution(case)
        met |= {(k.scheme, config) for k, config in kernels(task_of(op, [x, w, bias], (1, 2)))}
    assert {scheme for scheme, _ in met} == {
        "conv_sliding_window",
        "conv_im2col",
        "conv_pointwise",
        "conv_winograd",
        "conv_depthwise",
        "reference",
    }
    assert {dict(config)["m"] for scheme, config in met if scheme == "conv_winograd"} == {2, 4, 6}


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (3, 1), (5, 5), (1, 7), (7, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (13, 4), (8, 12)])
def test_winograd(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    op = Conv(pads=(kernel[0] // 2, kernel[1] // 2, kernel[0] // 2, kernel[1]))
    x, w, bias = normal(1, 2, 17, *size), normal(2, 15, 17, *kernel), normal(3, 15)
    for constants, expected in (((1, 2), {"conv_winograd"}), ((2,), set())):
        met = check(op, [x, w, bias], constants, only=lambda scheme: "winograd" in scheme)
        assert met == expected


@pytest.mark.parametrize("shape", [(7,), (5, 4, 6)])
@pytest.mark.parametrize("group", [1, 3])
def test_other_numbers_of_axes(shape: tuple[int, ...], group: int) -> None:
    axes = len(shape)
    op = Conv((2,) * axes, (1,) * axes + (0,) * axes, (1,) * axes, group)
    w = normal(2, 6, 3 // group, *(2,) * axes)
    met = check(op, [normal(1, 2, 3, *shape), w, normal(3, 6)], (1, 2))
    assert {"conv_im2col", "conv_sliding_window", "reference"} <= met


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_floats(dtype: Any) -> None:
    op = Conv(pads=(1, 1, 1, 1))
    arrays = [normal(1, 1, 5, 6, 7, dtype=dtype), normal(2, 4, 5, 3, 3, dtype=dtype)]
    tolerance = 1e-13 if dtype == np.float64 else 3e-2
    assert check(op, arrays, (1,), tolerance, only=lambda s: "winograd" not in s)


TRANSPOSED = {
    "batch": (1, 2),
    "c": (1, 3, 17),
    "k": (1, 15, 16),
    "height": SIZES,
    "width": (1, 2, 7),
    "kernel": ((1, 1), (3, 3), (2, 2), (1, 3), (4, 4), (5, 2)),
    "pads": ("none", "same", "asymmetric"),
    "strides": ((1, 1), (2, 2), (2, 1), (3, 3)),
    "dilations": ((1, 1), (2, 1)),
    "output_padding": ((0, 0), (1, 0)),
    "group": (1, 2),
    "bias": (True, False),
}


def transposed_pads(case: Case) -> tuple[int, ...]:
    kernel = case["kernel"]
    cut = tuple((r - 1) // 2 for r in kernel)
    return {"none": (0, 0, 0, 0), "same": (*cut, *cut), "asymmetric": (0, *cut, 0)}[case["pads"]]


def transposed_fits(case: Case) -> bool:
    extra = max(case["strides"][0], case["dilations"][0])
    low_y, low_x, high_y, high_x = transposed_pads(case)
    (r, s), (dr, ds), (sy, sx) = case["kernel"], case["dilations"], case["strides"]
    height = (case["height"] - 1) * sy + (r - 1) * dr + 1 - low_y - high_y
    width = (case["width"] - 1) * sx + (s - 1) * ds + 1 - low_x - high_x
    return case["output_padding"][0] < extra and height > 0 and width > 0


@pytest.mark.parametrize("case", pairwise(TRANSPOSED, transposed_fits), ids=identity)
def test_transposed_convolutions(case: Case) -> None:
    group = case["group"]
    op = ConvTranspose(
        case["strides"],
        transposed_pads(case),
        case["dilations"],
        case["output_padding"],
        group=group,
    )
    x = normal(1, case["batch"], group * case["c"], case["height"], case["width"])
    w = normal(2, group * case["c"], case["k"], *case["kernel"])
    bias = [normal(3, group * case["k"])] if case["bias"] else []
    assert check(op, [x, w, *bias], (1, 2)[: 1 + len(bias)]) == {"conv_transposed", "reference"}
