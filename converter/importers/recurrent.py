"""Importers of recurrent layers."""

from __future__ import annotations

from mnnpy.converter.importers.base import Importer, OnnxNode, Row, build
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.recurrent import GATE_ACTIVATIONS, GRU, LSTM, RNN, Recurrent

_SPELLING = {name.lower(): name for name in GATE_ACTIVATIONS}
_DIRECTIONS = ("forward", "reverse", "bidirectional")


def _recurrent(op_type: type[Recurrent]) -> Importer:
    def importer(node: OnnxNode) -> Op:
        # The hidden size follows from r; "foward" is the default that GRU-1's schema names.
        direction = node.attributes.get("direction", "forward").replace("foward", "forward")
        if direction not in _DIRECTIONS:
            raise InvalidModelError(f"{node}: direction {direction!r} is none of {_DIRECTIONS}")
        return build(
            op_type,
            node,
            ("hidden_size", "output_sequence"),
            direction=direction,
            activations=_activations(node, op_type, 2 if direction == "bidirectional" else 1),
        )

    return importer


def _activations(node: OnnxNode, op_type: type[Recurrent], directions: int) -> tuple[str, ...]:
    given = node.attributes.get("activations", ())
    names = tuple(_SPELLING.get(name.lower(), name) for name in given)
    unknown = [name for name in names if name not in GATE_ACTIVATIONS]
    wanted = directions * len(op_type.own_activations)
    if unknown or (names and len(names) < wanted):
        raise InvalidModelError(
            f"{node}: activations {list(given)}, needed are {wanted} of {list(GATE_ACTIVATIONS)}"
        )
    return names[:wanted]


ROWS: tuple[Row, ...] = (
    Row("RNN", 1, _recurrent(RNN)),
    Row("GRU", 1, _recurrent(GRU)),
    Row("LSTM", 1, _recurrent(LSTM)),
)
