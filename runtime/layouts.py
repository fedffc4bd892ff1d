"""Tensors in a layout as people and other engines see them: row-major, in ONNX's axis order."""

from __future__ import annotations

import numpy as np

from mnnpy.runtime.contracts import Layout
from mnnpy.runtime.graph.types import Array


def plain_content(held: Array, layout: Layout, channels: int | None) -> Array:
    """The content (n, c, ...) of host memory in a layout; a view where the layout allows.

    Parameters
    ----------
    channels : size of axis 1, which a blocked layout rounds up; None where there is no such axis.
    """
    inside = _without_halo(held, layout)
    if layout.kind == "plain":
        return inside
    if layout.kind == "channels_last":
        return np.moveaxis(inside, -1, 1)
    by_block = np.moveaxis(inside, -1, 2)
    n, blocks, block, *spatial = by_block.shape
    return by_block.reshape(n, blocks * block, *spatial)[:, :channels]


def write_content(content: Array, held: Array, layout: Layout) -> None:
    """Put plain content into host memory in a layout; halos and spare lanes stay as they are."""
    inside = _without_halo(held, layout)
    if layout.kind == "plain":
        inside[...] = content
    elif layout.kind == "channels_last":
        np.moveaxis(inside, -1, 1)[...] = content
    else:
        by_block = np.moveaxis(inside, -1, 2)
        for block, first in enumerate(range(0, content.shape[1], layout.block)):
            piece = content[:, first : first + layout.block]
            by_block[:, block, : piece.shape[1]] = piece


def _spatial_axes(held: Array, layout: Layout) -> range:
    first = 1 if layout.kind == "channels_last" else 2
    return range(first, held.ndim if layout.kind == "plain" else held.ndim - 1)


def _without_halo(held: Array, layout: Layout) -> Array:
    if not layout.halo:
        return held
    spatial = _spatial_axes(held, layout)
    return held[
        tuple(
            slice(layout.halo, -layout.halo) if axis in spatial else slice(None)
            for axis in range(held.ndim)
        )
    ]
