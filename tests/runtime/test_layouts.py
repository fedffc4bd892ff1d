"""Content of tensors in every layout, read and written."""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.layouts import PLAIN, Layout, plain_content, write_content

LAYOUTS = (
    PLAIN,
    Layout("plain", halo=1),
    Layout("channels_last"),
    Layout("channels_last", halo=2),
    Layout("blocked", 4),
    Layout("blocked", 4, 2, fill=-1.0),
)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 1, 1), (2, 9, 3, 2), (0, 3, 2, 2)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_written_is_read_and_the_rest_stays(layout: Layout, shape: tuple[int, ...]) -> None:
    held = np.full(layout.physical_shape(TensorType(FLOAT32, shape)), 7, np.float32)
    content = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape) / 8
    content[content == 7] = 0
    write_content(content, held, layout)
    np.testing.assert_array_equal(plain_content(held, layout, shape[1]), content)
    assert (held == 7).sum() == held.size - content.size


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_plain_tensors_of_few_axes(shape: tuple[int, ...]) -> None:
    held = np.zeros(shape, np.float32)
    write_content(np.ones(shape, np.float32), held, PLAIN)
    assert (plain_content(held, PLAIN, None) == 1).all()
