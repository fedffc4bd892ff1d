"""Importers of elementwise operators and activations."""

from __future__ import annotations

from mnnpy.converter.importers.base import Row, direct
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew

ROWS: tuple[Row, ...] = (
    *(
        Row(op.__name__, 1, direct(op, "consumed_inputs", "axis", "broadcast"))
        for op in ew.OPERATORS
    ),
    Row("Relu", 1, direct(act.Relu, "consumed_inputs")),
    Row("Sigmoid", 1, direct(act.Sigmoid, "consumed_inputs")),
    Row("Tanh", 1, direct(act.Tanh, "consumed_inputs")),
    Row("LeakyRelu", 1, direct(act.LeakyRelu, "consumed_inputs")),
    Row("HardSigmoid", 1, direct(act.HardSigmoid, "consumed_inputs")),
    Row("HardSwish", 14, direct(act.HardSwish)),
)
