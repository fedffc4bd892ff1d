"""Evaluate nodes that read constants only."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.passes.growth import grows_too_much
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import evaluate_known, infer_node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import STRING, TensorType, Value
from mnnpy.runtime.ops.quantization import DequantizeLinear


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes whose inputs are all constants by their results.

    Random operators stay, so do loops and what would make the model grow, and quantised weights
    stay quantised.
    """
    return apply_rules(graph, _fold)


def _fold(subject: Subject, node: Node) -> Patch | None:
    if not all(name in subject.constants for name in node.reads):
        return None
    op = node.op
    if isinstance(op, DequantizeLinear) or not (op.deterministic and op.bounded):
        return None
    arrays = [subject.constant(name) for name in node.inputs]
    values = [None if a is None else Value(TensorType(a.dtype, a.shape), a) for a in arrays]
    results = infer_node(node, values)
    types = [result.type for result in results]
    if not all(isinstance(t, TensorType) and t.static for t in types):
        return None
    made = sum(t.nbytes for t in types if isinstance(t, TensorType) and t.dtype != STRING)
    if grows_too_much(subject, node, made):
        return None
    contents = evaluate_known(node, values)
    if contents is None:
        return None
    constants = {
        name: np.asarray(content, order="C")
        for name, content in zip(node.outputs, contents, strict=False)
    }
    return Patch((node,), constants=constants)
