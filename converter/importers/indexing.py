"""Importers of operators that cut, join, pad, gather and scatter."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.importers.base import (
    Imported,
    OnnxNode,
    Row,
    attributes_to_inputs,
    build,
    direct,
    with_inputs,
)
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.blocks import Col2Im, DepthToSpace, SpaceToDepth
from mnnpy.runtime.ops.indexing import (
    Gather,
    GatherElements,
    GatherND,
    OneHot,
    ScatterElements,
    ScatterND,
    TensorScatter,
)
from mnnpy.runtime.ops.selection import Compress, NonZero, ReverseSequence, Trilu, Unique
from mnnpy.runtime.ops.slicing import CenterCropPad, Concat, Expand, Pad, Slice, Split, Tile


def _split_2(node: OnnxNode) -> Imported:
    sizes = node.attributes.get("split")
    op = Split(len(node.outputs), node.attributes.get("axis", 0))
    given = node.input(1) if sizes is None else np.asarray(sizes, dtype=np.int64)
    return with_inputs(node, op, node.inputs[0], given)


def _split_13(node: OnnxNode) -> Op:
    count = node.attributes.get("num_outputs", len(node.outputs))
    if count < len(node.outputs):
        raise InvalidModelError(f"{node}: num_outputs {count} for {len(node.outputs)} outputs")
    return build(Split, node, num_outputs=count)


def _pad_1(node: OnnxNode) -> Imported:
    attributes = node.attributes
    pads = attributes["pads" if "pads" in attributes else "paddings"]
    value = attributes.get("value", 0.0)
    # The element type of x is not known here; Pad converts the value.
    border = np.asarray(value, dtype=np.float32) if value else None
    op = Pad(attributes.get("mode", "constant"))
    return with_inputs(node, op, node.inputs[0], np.asarray(pads, dtype=np.int64), border)


ROWS: tuple[Row, ...] = (
    Row("Slice", 1, attributes_to_inputs(Slice, "starts", "ends", "axes")),
    Row("Slice", 10, direct(Slice)),
    Row("Split", 1, _split_2),
    Row("Split", 13, _split_13),
    Row("Concat", 1, lambda node: Concat(node.attributes.get("axis", 1))),
    Row("Concat", 4, direct(Concat)),
    Row("Pad", 1, _pad_1),
    Row("Pad", 11, direct(Pad)),
    Row("Tile", 6, direct(Tile)),
    Row("Expand", 8, direct(Expand)),
    Row("CenterCropPad", 18, direct(CenterCropPad)),
    Row("Gather", 1, direct(Gather)),
    Row("GatherElements", 11, direct(GatherElements)),
    Row("GatherND", 11, direct(GatherND)),
    Row("Scatter", 9, direct(ScatterElements)),
    Row("ScatterElements", 11, direct(ScatterElements)),
    Row("ScatterND", 11, direct(ScatterND)),
    Row("TensorScatter", 24, direct(TensorScatter)),
    Row("OneHot", 9, direct(OneHot)),
    Row("NonZero", 9, direct(NonZero)),
    Row("Compress", 9, direct(Compress)),
    Row("Unique", 11, direct(Unique)),
    Row("Trilu", 14, direct(Trilu)),
    Row("ReverseSequence", 10, direct(ReverseSequence)),
    Row("DepthToSpace", 1, direct(DepthToSpace)),
    Row("SpaceToDepth", 1, direct(SpaceToDepth)),
    Row("Col2Im", 18, direct(Col2Im)),
)
