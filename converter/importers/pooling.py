"""Importers of pools."""

from __future__ import annotations

from mnnpy.converter.importers.base import OnnxNode, Row, build, direct
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import pooling as pool
from mnnpy.runtime.ops import roi


def _roi_align_10(node: OnnxNode) -> Op:
    return build(roi.RoiAlign, node, coordinate_transformation_mode="output_half_pixel")


ROWS: tuple[Row, ...] = (
    Row("MaxPool", 1, direct(pool.MaxPool)),
    Row("AveragePool", 1, direct(pool.AveragePool)),
    Row("LpPool", 1, direct(pool.LpPool)),
    Row("GlobalAveragePool", 1, direct(pool.GlobalAveragePool)),
    Row("GlobalMaxPool", 1, direct(pool.GlobalMaxPool)),
    Row("GlobalLpPool", 1, direct(pool.GlobalLpPool)),
    Row("MaxUnpool", 9, direct(pool.MaxUnpool)),
    Row("MaxRoiPool", 1, direct(roi.MaxRoiPool)),
    Row("RoiAlign", 10, _roi_align_10),
    Row("RoiAlign", 16, direct(roi.RoiAlign)),
)
