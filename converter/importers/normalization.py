"""Importers of normalizations."""

from __future__ import annotations

from mnnpy.converter.importers.base import Importer, OnnxNode, Row, build, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import normalization as norm


def _batch_1(node: OnnxNode) -> Op:
    """Before opset 14, more than one output means training; ``spatial`` follows from shapes."""
    training = len(node.outputs) > 1 and not node.attributes.get("is_test", 0)
    ignored = ("consumed_inputs", "is_test", "spatial")
    return build(norm.BatchNormalization, node, ignored, training_mode=int(training))


def _stashing(op: type[Op]) -> Importer:
    """``stash_type`` is an element type."""

    def importer(node: OnnxNode) -> Op:
        return build(op, node, stash_type=dtype_field(node.attributes.get("stash_type", 1)))

    return importer


ROWS: tuple[Row, ...] = (
    Row("BatchNormalization", 1, _batch_1),
    Row("BatchNormalization", 14, direct(norm.BatchNormalization)),
    Row("InstanceNormalization", 1, direct(norm.InstanceNormalization, "consumed_inputs")),
    Row("GroupNormalization", 18, _stashing(norm.GroupNormalization)),
    Row("LayerNormalization", 17, _stashing(norm.LayerNormalization)),
    Row("RMSNormalization", 23, _stashing(norm.RMSNormalization)),
    Row("LRN", 1, direct(norm.LRN)),
    Row("MeanVarianceNormalization", 9, direct(norm.MeanVarianceNormalization)),
    Row("LpNormalization", 1, direct(norm.LpNormalization)),
)
