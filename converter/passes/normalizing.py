"""Recognising normalizations over trailing axes: first without scale, which is then taken up."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from mnnpy.converter.passes.patterns import Match, Pattern, keeps_type, matches, needed_operators
from mnnpy.runtime.graph.dims import is_static
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.rewrite import Patch, Rule, Subject
from mnnpy.runtime.graph.types import FLOAT64, Array, TensorType
from mnnpy.runtime.ops.elementwise import Add, Div, Mul
from mnnpy.runtime.ops.normalization import LayerNormalization, RMSNormalization
from mnnpy.runtime.ops.shape_math import normalize_axes, normalize_axis

Normalization: TypeAlias = LayerNormalization | RMSNormalization


def normalization_rule(pattern: Pattern, op_type: type[Normalization]) -> Rule:
    """Rule that makes a normalization of a formula for ``x``.

    The pattern names the constants ``axes`` and ``square_axes`` and the number ``epsilon``, and
    may name the constants ``scale`` and ``bias``; the scale is one where it does not.
    """
    needed = needed_operators(pattern)

    def rule(subject: Subject, node: Node) -> Patch | None:
        if not isinstance(node.op, Add | Mul | Div) or not needed <= subject.op_types:
            return None
        for match in matches(subject, node, pattern):
            x = subject.tensor(match.values["x"])
            axis = None if x is None else _trailing_axis(subject, match, x)
            if x is None or axis is None or not keeps_type(subject, match):
                continue
            inner = x.shape[axis:]
            if not is_static(inner) or x.dtype.kind not in "fV":
                continue
            scale = _parameter(subject, match, "scale", np.ones(inner, dtype=x.dtype))
            bias = _parameter(subject, match, "bias", None)
            if any(array is not None and array.shape != inner for array in (scale, bias)):
                continue
            stash = "float64" if x.dtype == FLOAT64 else "float32"
            op = op_type(axis - x.rank, match.numbers["epsilon"], stash)
            return _normalized(subject, node, match, op, scale, bias)
        return None

    return rule


def _parameter(subject: Subject, match: Match, name: str, default: Array | None) -> Array | None:
    return subject.constants[match.values[name]] if name in match.values else default


def _normalized(
    subject: Subject, node: Node, match: Match, op: Op, scale: Array, bias: Array | None
) -> Patch:
    constants = {subject.fresh(f"{node.outputs[0]}.scale"): scale}
    if bias is not None:
        constants[subject.fresh(f"{node.outputs[0]}.bias")] = bias
    new = Node(node.name, op, (match.values["x"], *constants), node.outputs)
    return Patch(match.nodes, (new,), constants)


def absorb_scale(op_type: type[Normalization]) -> Rule:
    """Rule that multiplies a normalization's scale by a constant behind it."""

    def rule(subject: Subject, node: Node) -> Patch | None:
        found = _constant_behind(subject, node, Mul, op_type)
        if found is None or len(found[0].inputs) > 2:
            return None
        first, array, scale = found
        return _absorbed(subject, node, first, (scale * array).astype(scale.dtype))

    return rule


def absorb_bias(op_type: type[Normalization]) -> Rule:
    """Rule that takes a constant added behind a normalization for its bias."""

    def rule(subject: Subject, node: Node) -> Patch | None:
        found = _constant_behind(subject, node, Add, op_type)
        if found is None or len(found[0].inputs) > 2:
            return None
        first, array, scale = found
        return _absorbed(subject, node, first, scale, np.array(np.broadcast_to(array, scale.shape)))

    return rule


def _trailing_axis(subject: Subject, match: Match, x: TensorType) -> int | None:
    """The first of the axes that all means are taken over, where these are the last ones."""
    names = (match.values[key] for key in ("axes", "square_axes") if key in match.values)
    over = {
        tuple(sorted(normalize_axes(subject.constants[name].reshape(-1).tolist(), x.rank)))
        for name in names
    }
    axes = over.pop() if len(over) == 1 else ()
    return axes[0] if axes and axes == tuple(range(axes[0], x.rank)) else None


def _constant_behind(
    subject: Subject, node: Node, op: type[Mul | Add], op_type: type[Normalization]
) -> tuple[Node, Array, Array] | None:
    """The normalization before a node, the constant that it is combined with, and the scale."""
    if not isinstance(node.op, op):
        return None
    for name, other in (node.reads, node.reads[::-1]):
        first = subject.producer(name, op_type)
        array = subject.constant(other)
        if first is None or array is None or len(first.outputs) != 1 or not subject.private(name):
            continue
        x, scale = subject.tensor(first.inputs[0]), subject.constant(first.inputs[1])
        if x is None or scale is None or not isinstance(first.op, op_type):
            continue
        inner = x.shape[normalize_axis(first.op.axis, x.rank) :]
        if scale.shape == inner and _fits(array, scale):
            return first, array, scale
    return None


def _fits(array: Array, scale: Array) -> bool:
    """Whether a constant broadcasts to the scale without adding axes to it."""
    if array.ndim > scale.ndim or array.dtype != scale.dtype:
        return False
    sizes = zip(reversed(array.shape), reversed(scale.shape), strict=False)
    return all(size in (1, wanted) for size, wanted in sizes)


def _absorbed(
    subject: Subject, node: Node, first: Node, scale: Array, bias: Array | None = None
) -> Patch:
    constants = {subject.fresh(f"{node.outputs[0]}.scale"): scale}
    if bias is not None:
        constants[subject.fresh(f"{node.outputs[0]}.bias")] = bias
    new = replace(first, inputs=(first.inputs[0], *constants), outputs=node.outputs)
    return Patch((first, node), (new,), constants)
