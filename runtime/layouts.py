"""How tensors lie in memory, and their content as people and other engines see it: row-major, in
ONNX's axis order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.graph.types import Array, TensorType


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory.

    Parameters
    ----------
    kind : ``"plain"`` (row-major, ONNX's axis order), ``"channels_last"`` or ``"blocked"``.
    block : channels per block of a blocked layout.
    halo : border of ``fill`` around each spatial axis, written by the producer on every run.
    """

    kind: str = "plain"
    block: int = 1
    halo: int = 0
    fill: float = 0.0

    def physical_shape(self, tensor: TensorType) -> tuple[int, ...]:
        """Shape of the memory that holds a tensor of static shape."""
        shape = tuple(int(dim) for dim in tensor.shape)
        spatial = tuple(dim + 2 * self.halo for dim in shape[2:])
        if self.kind == "plain":
            return (*shape[:2], *spatial)
        if self.kind == "channels_last":
            return (shape[0], *spatial, shape[1])
        return (shape[0], -(-shape[1] // self.block), *spatial, self.block)

    def matches(self, other: Layout) -> bool:
        """Whether both differ at most in the width of a blocked layout's halo.

        Producers of blocked tensors write the halo that their readers need, so that such layouts
        need no conversion.
        """
        if self.kind == other.kind == "blocked":
            return (self.block, self.fill) == (other.block, other.fill)
        return self == other

    def nbytes(self, tensor: TensorType) -> int:
        return math.prod(self.physical_shape(tensor)) * tensor.dtype.itemsize

    def __str__(self) -> str:
        name = f"c{self.block}" if self.kind == "blocked" else self.kind
        return f"{name}+{self.halo}" if self.halo else name


PLAIN = Layout()


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
