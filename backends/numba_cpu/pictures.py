"""Tensors of one spatial axis as pictures of a single row, so that one kernel serves both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.dims import Dim
from mnnpy.runtime.graph.types import TensorType
from mnnpy.runtime.ops.shape_math import Window
from mnnpy.schemes.geometry import ConvGeometry


def is_picture(tensor: TensorType) -> bool:
    """Whether a tensor is (n, c, h, w), or (n, c, w): a single row."""
    return tensor.rank in (3, 4)


def picture_shape(shape: Iterable[Dim]) -> tuple[int, int, int, int]:
    """The shape of a picture as (n, c, h, w)."""
    n, c, *spatial = shape
    return int(n), int(c), *_of_two(spatial, 1)


def picture_window(window: Window) -> Window:
    """A window over one axis as one over height and width."""
    return Window(
        _of_two(window.kernel, 1),
        _of_two(window.strides, 1),
        _of_two(window.dilations, 1),
        _of_two(window.begin, 0),
        _of_two(window.end, 0),
        _of_two(window.output, 1),
    )


def picture_geometry(task: Task) -> ConvGeometry:
    """The numbers of a convolution as of one over height and width."""
    g = ConvGeometry.of(task)
    return replace(
        g,
        spatial=_of_two(g.spatial, 1),
        output=_of_two(g.output, 1),
        kernel=_of_two(g.kernel, 1),
        strides=_of_two(g.strides, 1),
        dilations=_of_two(g.dilations, 1),
        begin=_of_two(g.begin, 0),
        end=_of_two(g.end, 0),
        window=picture_window(g.window),
    )


def _of_two(along: Iterable[Dim], missing: int) -> tuple[int, int]:
    """Numbers of the spatial axes, with that of a height where there is none."""
    *height, width = map(int, along)
    return (height[0] if height else missing), width
