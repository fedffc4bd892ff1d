"""Importers of sequences and optionals; SequenceMap is among control flow."""

from __future__ import annotations

from mnnpy.converter.importers.base import OnnxNode, Row, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import sequence


def _sequence_empty(node: OnnxNode) -> Op:
    return sequence.SequenceEmpty(dtype_field(node.attributes.get("dtype")) or "float32")


ROWS: tuple[Row, ...] = (
    Row("SequenceEmpty", 11, _sequence_empty),
    Row("SequenceConstruct", 11, direct(sequence.SequenceConstruct)),
    Row("SequenceInsert", 11, direct(sequence.SequenceInsert)),
    Row("SequenceErase", 11, direct(sequence.SequenceErase)),
    Row("SequenceAt", 11, direct(sequence.SequenceAt)),
    Row("SequenceLength", 11, direct(sequence.SequenceLength)),
    Row("SplitToSequence", 11, direct(sequence.SplitToSequence)),
    Row("ConcatFromSequence", 11, direct(sequence.ConcatFromSequence)),
    Row("Optional", 15, direct(sequence.Optional, "type")),
    Row("OptionalHasElement", 15, direct(sequence.OptionalHasElement)),
    Row("OptionalGetElement", 15, direct(sequence.OptionalGetElement)),
)
