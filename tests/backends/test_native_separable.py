"""A depthwise convolution and the 1x1 convolution behind it as one kernel, over odd shapes."""

from __future__ import annotations

import pytest

from mnnpy.backends.numba_cpu.conv_separable import ConvSeparable
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv
from tests.backends.convolution_chains import Stage, assert_close, chain_task, computed
from tests.backends.test_kernels import Array
from tests.pairwise import Case, pairwise

PARAMETERS = {
    "batch": (1, 3),
    "c": (1, 8, 15, 16, 17, 33),
    "k": (1, 8, 16, 17, 24, 40),
    "height": (3, 7, 14),
    "width": (3, 14, 15, 29),
    "kernel": ((3, 3), (5, 5), (1, 3), (3, 1)),
    "pads": ((1, 1, 1, 1), (0, 1, 2, 1), (2, 2, 2, 2)),
    "strides": ((1, 1), (2, 2), (2, 1)),
    "biased": (False, True),
    "between": (None, act.Relu(), act.HardSwish()),
    "behind": (None, act.Relu(), ew.Add()),
    "shortcut": (False, True),
    "halo": (0, 2),
}


def fits(case: Case) -> bool:
    top, left, bottom, right = case["pads"]
    sizes = case["height"] + top + bottom, case["width"] + left + right
    return all(size >= kernel for size, kernel in zip(sizes, case["kernel"], strict=True))


def fits_shortcut(case: Case) -> bool:
    """Whether the input has the shape of the output."""
    extra = [sum(case["pads"][axis::2]) - case["kernel"][axis] + 1 for axis in range(2)]
    return case["c"] == case["k"] and extra == [0, 0] and case["strides"] == (1, 1)


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("case", pairwise(PARAMETERS, fits), ids=shown)
def test_odd_shapes_of_separable_convolutions(case: Case) -> None:
    task, arrays = _task(case)
    assert_close(computed(task, arrays, ConvSeparable.scheme, case["halo"]), task, arrays)


def _task(case: Case) -> tuple[Task, list[Array]]:
    c, k = case["c"], case["k"]
    stages = (
        Stage(
            Conv(case["strides"], case["pads"], group=c), (c, 1, *case["kernel"]), case["between"]
        ),
        Stage(Conv(), (k, c, 1, 1), case["behind"]),
    )
    x = (case["batch"], c, case["height"], case["width"])
    return chain_task(x, stages, case["biased"], case["shortcut"] and fits_shortcut(case))
