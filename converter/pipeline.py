"""The passes in order, and converting a model with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx

from mnnpy.converter.listing import describe
from mnnpy.converter.onnx_file import load_onnx
from mnnpy.converter.onnx_reader import read_graph
from mnnpy.converter.passes.absorb_following_affine import absorb_following_affine
from mnnpy.converter.passes.absorb_pads import absorb_pads
from mnnpy.converter.passes.absorb_preceding_affine import absorb_preceding_affine
from mnnpy.converter.passes.absorb_slices import absorb_slices
from mnnpy.converter.passes.eliminate_dead_code import eliminate_dead_code
from mnnpy.converter.passes.evaluate_shapes import evaluate_shapes
from mnnpy.converter.passes.expand_batchnorm import expand_batchnorm
from mnnpy.converter.passes.expand_einsum import expand_einsum
from mnnpy.converter.passes.fold_constants import fold_constants
from mnnpy.converter.passes.form_gemm import form_gemm
from mnnpy.converter.passes.merge_casts import merge_casts
from mnnpy.converter.passes.merge_common_subexpressions import merge_common_subexpressions
from mnnpy.converter.passes.merge_reshapes import merge_reshapes
from mnnpy.converter.passes.merge_transposes import merge_transposes
from mnnpy.converter.passes.recognise_attention import recognise_attention
from mnnpy.converter.passes.recognise_gelu import recognise_gelu
from mnnpy.converter.passes.recognise_hard_sigmoid import recognise_hard_sigmoid
from mnnpy.converter.passes.recognise_hard_swish import recognise_hard_swish
from mnnpy.converter.passes.recognise_layer_normalization import recognise_layer_normalization
from mnnpy.converter.passes.recognise_mish import recognise_mish
from mnnpy.converter.passes.recognise_rms_normalization import recognise_rms_normalization
from mnnpy.converter.passes.recognise_softmax import recognise_softmax
from mnnpy.converter.passes.recognise_swish import recognise_swish
from mnnpy.converter.passes.remove_identities import remove_identities
from mnnpy.converter.passes.trim_kernels import trim_kernels
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Pass
from mnnpy.runtime.ops.user import OperatorLibrary

_CLEANING: tuple[Pass, ...] = (
    fold_constants,
    evaluate_shapes,
    remove_identities,
    merge_casts,
    merge_common_subexpressions,
    merge_reshapes,
    merge_transposes,
)

PASSES: tuple[Pass, ...] = (
    *_CLEANING,
    expand_einsum,
    recognise_softmax,
    recognise_gelu,
    recognise_hard_sigmoid,
    recognise_hard_swish,
    recognise_swish,
    recognise_mish,
    recognise_layer_normalization,
    recognise_rms_normalization,
    recognise_attention,
    form_gemm,
    absorb_pads,
    absorb_slices,
    trim_kernels,
    absorb_following_affine,
    absorb_preceding_affine,
    expand_batchnorm,
    *_CLEANING,
    eliminate_dead_code,
)
"""What a model passes through, in this order."""


def convert(
    source: str | Path | bytes | onnx.ModelProto,
    target: str | Path | None = None,
    *,
    dump_passes: str | Path | None = None,
    operators: OperatorLibrary | None = None,
) -> Graph:
    """Convert an ONNX model, and save the result where ``target`` says so.

    Parameters
    ----------
    source : an ``.onnx`` file, its content, or the model in memory.
    target : the ``.mnnpy`` file to write.
    dump_passes : folder for a listing of the graph after every pass that changed it.
    operators : users' operators, which win over those that mnnpy can import.

    Raises
    ------
    InvalidModelError
        Where the source is not ONNX, or breaks ONNX's rules.
    UnsupportedOperatorError
        Listing every operator that no importer knows.
    ShapeError
        Where shapes do not fit an operator; names the node.
    """
    model = source if isinstance(source, onnx.ModelProto) else load_onnx(source)
    graph = run_passes(read_graph(model, operators), dump_passes=dump_passes)
    if target is not None:
        from mnnpy.runtime.model_file import save_model

        save_model(graph, target)
    return graph


def run_passes(
    graph: Graph, passes: Sequence[Pass] = PASSES, dump_passes: str | Path | None = None
) -> Graph:
    """The graph after all passes, which its operators' own graphs go through first."""
    graph = _with_passed_bodies(graph, passes)
    folder = None if dump_passes is None else Path(dump_passes)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "00_read.txt").write_text(describe(graph), encoding="utf-8")
    for number, change in enumerate(passes, start=1):
        before, graph = graph, change(graph)
        if graph is before:
            continue
        graph.validate()
        if folder is not None:
            path = folder / f"{number:02}_{change.__name__}.txt"
            path.write_text(describe(graph), encoding="utf-8")
    return graph


def _with_passed_bodies(graph: Graph, passes: Sequence[Pass]) -> Graph:
    nodes = tuple(_with_passed_body(node, passes) for node in graph.nodes)
    changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
    return dataclasses.replace(graph, nodes=nodes) if changed else graph


def _with_passed_body(node: Node, passes: Sequence[Pass]) -> Node:
    bodies = {
        field.name: body
        for field in dataclasses.fields(node.op)
        if isinstance(body := getattr(node.op, field.name), Graph)
    }
    passed = {name: run_passes(body, passes) for name, body in bodies.items()}
    if all(passed[name] is body for name, body in bodies.items()):
        return node
    return dataclasses.replace(node, op=dataclasses.replace(node.op, **passed))
