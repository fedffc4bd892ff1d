"""Importers of control flow: what subgraphs capture becomes inputs of their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mnnpy.converter.importers.base import Imported, OnnxNode, Row
from mnnpy.runtime.errors import InvalidModelError, UnsupportedOperatorError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import UnknownType
from mnnpy.runtime.ops.control import If, Loop, Scan
from mnnpy.runtime.ops.sequence import SequenceMap


def _capturing(node: OnnxNode, op: Op, captured: Iterable[str]) -> Imported:
    return Imported((Node(node.name, op, (*node.inputs, *captured), node.outputs),))


def _if(node: OnnxNode) -> Imported:
    branches: list[Graph] = [node.attributes[name] for name in ("then_branch", "else_branch")]
    counts = [len(branch.outputs) for branch in branches]
    if min(counts) < len(node.outputs) or counts[0] != counts[1]:
        raise InvalidModelError(f"{node}: branches give {counts} outputs, not {len(node.outputs)}")
    captured = dict.fromkeys((*branches[0].inputs, *branches[1].inputs), UnknownType())
    return _capturing(node, If(*(replace(b, inputs=captured) for b in branches)), captured)


def _loop(node: OnnxNode) -> Imported:
    body: Graph = node.attributes["body"]
    inputs = (*node.inputs, *(None,) * (2 - len(node.inputs)))
    states = len(inputs) - 2
    captured = _captured(node, body, 2 + states, 1 + states)
    return _capturing(replace(node, inputs=inputs), Loop(body, states), captured)


def _captured(node: OnnxNode, body: Graph, inputs: int, outputs: int) -> Sequence[str]:
    """Names after a body's formal inputs. ``outputs`` is how many it must give at least."""
    if len(body.inputs) < inputs or len(body.outputs) < outputs:
        raise InvalidModelError(
            f"{node}: the body has {len(body.inputs)} inputs and {len(body.outputs)} outputs, "
            f"needs {inputs} and {outputs} or more"
        )
    return tuple(body.inputs)[inputs:]


def _scan_9(node: OnnxNode) -> Imported:
    attributes = dict(node.attributes)
    body: Graph = attributes.pop("body")
    states = len(node.inputs) - attributes["num_scan_inputs"]
    captured = _captured(node, body, len(node.inputs), states)
    return _capturing(node, Scan(body, states, **attributes), captured)


def _scan_8(node: OnnxNode) -> Imported:
    """Scan-8, over axis 1 of batches, is a Scan over the batch of a Scan over what is left."""
    if node.inputs[0] is not None:
        raise UnsupportedOperatorError(f"{node}: Scan-8 with sequence_lens is not supported")
    body: Graph = node.attributes["body"]
    formal = len(node.inputs) - 1
    scans = node.attributes["num_scan_inputs"]
    states = formal - scans
    captured = _captured(node, body, formal, states)
    directions = tuple(node.attributes.get("directions", ()))
    inner = Scan(body, states, scans, scan_input_directions=directions)
    names, outputs = tuple(body.inputs), tuple(f"{node.name}.{i}" for i in range(len(body.outputs)))
    batch = Graph(
        (Node(f"{node.name}.batch", inner, names, outputs),),
        dict.fromkeys(names, UnknownType()),
        outputs,
    )
    return _capturing(replace(node, inputs=node.inputs[1:]), Scan(batch, 0, formal), captured)


def _sequence_map(node: OnnxNode) -> Imported:
    body: Graph = node.attributes["body"]
    captured = _captured(node, body, len(node.inputs), len(node.outputs))
    return _capturing(node, SequenceMap(body, len(node.inputs)), captured)


ROWS: tuple[Row, ...] = (
    Row("If", 1, _if),
    Row("Loop", 1, _loop),
    Row("Scan", 8, _scan_8),
    Row("Scan", 9, _scan_9),
    Row("SequenceMap", 17, _sequence_map),
)
