"""Operators that move blocks between space and channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod
from typing import ClassVar

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.convolution import tap_slices
from mnnpy.runtime.ops.shape_math import Window, as_ints, product, slide_window


@dataclass(frozen=True, slots=True)
class DepthToSpace(Op):
    """Channels into blocks of b x b pixels, ONNX DepthToSpace-28.

    x : (n, c b b, h, w) -> (n, c, h b, w b). Channels run (b, b, c) in mode DCR, (c, b, b) in CRD.
    """

    blocksize: int
    mode: str = "DCR"

    def infer(self, x: Value) -> tuple[Type, ...]:
        b = self.blocksize
        n, c, h, w = _image(x.shape, self.mode)
        if differ(c % (b * b), 0):
            raise ShapeError(f"{c} channels are not divisible by {b} x {b}")
        return (TensorType(x.dtype, (n, c // (b * b), h * b, w * b)),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        n, c, h, w = x.shape
        b, k = self.blocksize, c // self.blocksize**2
        if self.mode == "DCR":
            y = x.reshape(n, b, b, k, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, k, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return (y.reshape(n, k, h * b, w * b),)


@dataclass(frozen=True, slots=True)
class SpaceToDepth(Op):
    """Blocks of b x b pixels into channels: DepthToSpace turned round, ONNX SpaceToDepth-28."""

    blocksize: int
    mode: str = "DCR"

    def infer(self, x: Value) -> tuple[Type, ...]:
        b = self.blocksize
        n, c, h, w = _image(x.shape, self.mode)
        if differ(h % b, 0) or differ(w % b, 0):
            raise ShapeError(f"an image of {h} x {w} is not divisible into blocks of {b} x {b}")
        return (TensorType(x.dtype, (n, c * (b * b), h // b, w // b)),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        n, c, h, w = x.shape
        b = self.blocksize
        blocks = x.reshape(n, c, h // b, b, w // b, b)
        order = (0, 3, 5, 1, 2, 4) if self.mode == "DCR" else (0, 1, 3, 5, 2, 4)
        return (blocks.transpose(order).reshape(n, c * b * b, h // b, w // b),)


def _image(shape: Shape, mode: str) -> Shape:
    if len(shape) != 4:
        raise ShapeError(f"an image has 4 axes (n, c, h, w), not the shape {shape}")
    if mode not in ("DCR", "CRD"):
        raise ShapeError(f"mode {mode!r} is neither DCR nor CRD")
    return shape


@dataclass(frozen=True, slots=True)
class Col2Im(Op):
    """Columns of sliding blocks summed into the image they were taken from, ONNX Col2Im-18.

    x : (n, c prod(block), positions), image : spatial sizes, block : kernel sizes
    -> (n, c, *image).
    """

    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    shape_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def window(self, image: Sequence[Dim], block: Sequence[Dim]) -> Window:
        """The sliding window whose positions are the columns."""
        return slide_window(tuple(image), block, self.strides, self.pads, self.dilations)

    def infer(self, x: Value, image: Value, block: Value) -> tuple[Type, ...]:
        if image.known is None or block.known is None:
            return (TensorType(x.dtype, (x.shape[0], *(UNKNOWN,) * (1 + int(image.shape[0])))),)
        positions = product(self.window(image.ints(), block.ints()).output)
        if differ(x.shape[2], positions):
            raise ShapeError(f"{x.shape[2]} columns, the image has {positions} positions")
        return (
            TensorType(x.dtype, (x.shape[0], x.shape[1] // product(block.ints()), *image.ints())),
        )

    def reference(self, xp: ArrayModule, x: Array, image: Array, block: Array) -> tuple[Array, ...]:
        sizes, kernel = as_ints(image), as_ints(block)
        window = self.window(sizes, kernel)
        n, c = x.shape[0], x.shape[1] // prod(kernel)
        low, high = ([int(pad) for pad in pads] for pads in (window.begin, window.end))
        padded = [size + a + b for size, a, b in zip(sizes, low, high, strict=True)]
        columns = x.reshape(n, c, *kernel, *window.output)
        y = xp.zeros((n, c, *padded), dtype=x.dtype)
        for tap in cartesian(*map(range, kernel)):
            y[(..., *tap_slices(window, tap))] += columns[(slice(None), slice(None), *tap)]
        crop = tuple(slice(a, a + size) for a, size in zip(low, sizes, strict=True))
        return (y[(..., *crop)],)


OPERATORS: tuple[type[Op], ...] = (DepthToSpace, SpaceToDepth, Col2Im)
