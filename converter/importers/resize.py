"""Importers of resizing and sampling."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.importers.base import Imported, OnnxNode, Row, build, direct, with_inputs
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.grid_sample import AffineGrid, GridSample
from mnnpy.runtime.ops.resize import Resize

_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def _asymmetric(node: OnnxNode) -> Resize:
    """Resize-10 and Upsample: no choice of coordinates, nor of the nearest."""
    mode = node.attributes.get("mode", "nearest")
    return Resize(
        _MODES.get(mode, mode), coordinate_transformation_mode="asymmetric", nearest_mode="simple"
    )


def _upsample_1(node: OnnxNode) -> Imported:
    scales = (1.0, 1.0, node.attributes["height_scale"], node.attributes["width_scale"])
    given = np.asarray(scales, dtype=np.float32)
    return with_inputs(node, _asymmetric(node), node.inputs[0], None, given)


def _upsample_7(node: OnnxNode) -> Imported:
    scales = np.asarray(node.attributes["scales"], dtype=np.float32)
    return with_inputs(node, _asymmetric(node), node.inputs[0], None, scales)


def _resize_10(node: OnnxNode) -> Imported:
    return with_inputs(node, _asymmetric(node), node.inputs[0], None, node.inputs[1])


def _resize_11(node: OnnxNode) -> Imported:
    """Drop an ``roi`` that has no effect and a constant empty ``scales``."""
    op = build(Resize, node)
    assert isinstance(op, Resize)
    x, roi, scales, sizes = (node.input(index) for index in range(4))
    if op.coordinate_transformation_mode != "tf_crop_and_resize":
        roi = None
    known = node.constant(2)
    if known is not None and known.size == 0:
        scales = None
    return with_inputs(node, op, x, roi, scales, sizes)


def _grid_sample(node: OnnxNode) -> Op:
    """GridSample-16 says bilinear and bicubic for linear and cubic."""
    mode = node.attributes.get("mode", "linear")
    return build(GridSample, node, mode=_MODES.get(mode, mode))


ROWS: tuple[Row, ...] = (
    Row("Upsample", 1, _upsample_1),
    Row("Upsample", 7, _upsample_7),
    Row("Upsample", 9, _resize_10),
    Row("Resize", 10, _resize_10),
    Row("Resize", 11, _resize_11),
    Row("GridSample", 16, _grid_sample),
    Row("AffineGrid", 20, direct(AffineGrid)),
)
