"""Importers of detection, image decoding, deformable convolution and determinants."""

from __future__ import annotations

from mnnpy.converter.importers.base import OnnxNode, Row, build, direct
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.deformable import DeformConv
from mnnpy.runtime.ops.detection import NonMaxSuppression
from mnnpy.runtime.ops.image import ImageDecoder
from mnnpy.runtime.ops.linear_algebra import Det

_PIXEL_FORMATS = ("RGB", "BGR", "Grayscale")


def _image_decoder(node: OnnxNode) -> Op:
    name = node.attributes.get("pixel_format", "RGB")
    if name not in _PIXEL_FORMATS:
        raise InvalidModelError(f"{node}: pixel_format {name!r} is none of {_PIXEL_FORMATS}")
    return build(ImageDecoder, node)


ROWS: tuple[Row, ...] = (
    Row("DeformConv", 19, direct(DeformConv, "kernel_shape")),
    Row("Det", 11, direct(Det)),
    Row("ImageDecoder", 20, _image_decoder),
    Row("NonMaxSuppression", 10, direct(NonMaxSuppression)),
)
