"""Evaluate shape arithmetic whose result the types decide."""

from __future__ import annotations

import numpy as np

from mnnpy.converter.passes.views import reshape_target
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.quantization import DequantizeLinear
from mnnpy.runtime.ops.shaping import Reshape


def evaluate_shapes(graph: Graph) -> Graph:
    """Replace nodes by their content where inference knows it, and targets of Reshape by constants.

    One dimension of a tensor may be known while others are symbols; a target that mentions symbols
    becomes a constant where 0 (the input's dimension) and -1 (what is left) say the same.
    """
    return apply_rules(graph, _evaluate, _settle_target)


def _evaluate(subject: Subject, node: Node) -> Patch | None:
    if isinstance(node.op, DequantizeLinear) or not node.outputs:
        return None
    results = [subject.value(name) for name in node.outputs]
    if not all(result.constant for result in results) or not _from_shapes(subject, node):
        return None
    contents = zip(node.outputs, results, strict=True)
    return Patch((node,), constants={name: np.asarray(r.known, r.dtype) for name, r in contents})


def _from_shapes(subject: Subject, node: Node) -> bool:
    """Whether the inputs are constants of the graph, or dimensions, or only their types matter.

    What is computed from dequantised weights is known too, and stays as it is.
    """
    inputs = [None if name is None else subject.value(name) for name in node.inputs]
    if node.op.content(inputs) is not None:
        return True
    return all(
        name in subject.constants or (value.known is not None and not value.constant)
        for name, value in zip(node.inputs, inputs, strict=True)
        if name is not None and value is not None
    )


def _settle_target(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, Reshape) or node.inputs[1] in subject.constants:
        return None
    x, y = subject.tensor(node.inputs[0]), subject.tensor(node.outputs[0])
    target = subject.value(node.reads[1])
    if x is None or y is None or target.known is None:
        return None
    dims = reshape_target(x.shape, y.shape)
    if dims is None:
        return None
    name = subject.fresh(f"{node.outputs[0]}.shape")
    new = Node(node.name, Reshape(), (node.inputs[0], name), node.outputs)
    return Patch((node,), (new,), {name: dims})
