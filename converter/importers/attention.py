"""Importers of attention and of what stands around it in transformers."""

from __future__ import annotations

from mnnpy.converter.importers.base import Imported, OnnxNode, Row, build, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.attention import Attention, RotaryEmbedding
from mnnpy.runtime.ops.flex_attention import FlexAttention
from mnnpy.runtime.ops.linear_attention import DELTA, GATED, CausalConvWithState, LinearAttention

_UPDATE_RULES = tuple(dict.fromkeys(("linear", *GATED, *DELTA)))
_ACTIVATIONS = {"none": "none", "silu": "silu", "swish": "silu"}


def _attention(node: OnnxNode) -> Op:
    return build(Attention, node, softmax_precision=_precision(node))


def _flex_attention(node: OnnxNode) -> Imported:
    op = build(FlexAttention, node, softmax_precision=_precision(node))
    captured: list[str] = []
    for name in ("score_mod", "prob_mod"):
        body: Graph | None = node.attributes.get(name)
        if body is None:
            continue
        if not body.inputs or len(body.outputs) != 1:
            raise InvalidModelError(
                f"{node}: {name} has {len(body.inputs)} inputs and {len(body.outputs)} outputs, "
                "needs one of each"
            )
        captured += tuple(body.inputs)[1:]
    return Imported((Node(node.name, op, (*node.inputs, *captured), node.outputs),))


def _precision(node: OnnxNode) -> str | None:
    return dtype_field(node.attributes.get("softmax_precision"))


def _linear_attention(node: OnnxNode) -> Op:
    rule = node.attributes.get("update_rule", "gated_delta")
    if rule not in _UPDATE_RULES:
        raise InvalidModelError(f"{node}: update_rule {rule!r} is none of {_UPDATE_RULES}")
    # The chunk size is a hint on how to compute, not on what.
    return build(LinearAttention, node, ("chunk_size",))


def _causal_conv(node: OnnxNode) -> Op:
    name = node.attributes.get("activation", "none")
    if name not in _ACTIVATIONS:
        raise InvalidModelError(f"{node}: activation {name!r} is none of {tuple(_ACTIVATIONS)}")
    return CausalConvWithState(_ACTIVATIONS[name])


ROWS: tuple[Row, ...] = (
    Row("Attention", 23, _attention),
    Row("FlexAttention", 1, _flex_attention, domain="ai.onnx.preview"),
    Row("CausalConvWithState", 27, _causal_conv),
    Row("LinearAttention", 27, _linear_attention),
    Row("RotaryEmbedding", 23, direct(RotaryEmbedding)),
)
