"""Decoding images."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import BackendError
from mnnpy.runtime.graph.dims import UNKNOWN
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import UINT8, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import on_host


@dataclass(frozen=True, slots=True)
class ImageDecoder(Op):
    """An encoded image (bytes) -> (height, width, channels) uint8, ONNX ImageDecoder-20.

    ``pixel_format`` is RGB, BGR or Grayscale. What cannot be decoded gives an empty image.
    Decoded on the host by Pillow, in the formats that ONNX names: BMP, JPEG, JPEG 2000, TIFF, PNG,
    WebP and portable anymaps.
    """

    pixel_format: str = "RGB"

    host_only: ClassVar[bool] = True

    @property
    def channels(self) -> int:
        return 1 if self.pixel_format == "Grayscale" else 3

    def infer(self, encoded: Value) -> tuple[Type, ...]:
        return (TensorType(UINT8, (UNKNOWN, UNKNOWN, self.channels)),)

    def reference(self, xp: ArrayModule, encoded: Array) -> tuple[Array, ...]:
        try:
            from PIL import Image
        except ImportError:
            raise BackendError(
                "ImageDecoder needs Pillow, which is not installed: pip install 'mnnpy[image]'"
            ) from None
        formats = ("BMP", "JPEG", "JPEG2000", "TIFF", "PNG", "WEBP", "PPM")
        try:
            with Image.open(io.BytesIO(on_host(encoded).tobytes()), formats=formats) as image:
                pixels = np.array(image.convert("L" if self.channels == 1 else "RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return (xp.zeros((0, 0, self.channels), dtype=np.uint8),)
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        return (xp.asarray(pixels[:, :, ::-1] if self.pixel_format == "BGR" else pixels),)


OPERATORS: tuple[type[Op], ...] = (ImageDecoder,)
