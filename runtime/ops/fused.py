"""Regions: several nodes that a backend runs as one kernel, and device copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mnnpy.runtime.graph.evaluate import evaluate
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, Type, Value


@dataclass(frozen=True, slots=True)
class Fused(Op):
    """A region as one operator: its inner graph says all, so that fusion is never said twice."""

    graph: Graph
    domain: ClassVar[str] = "mnnpy"

    @property
    def kind(self) -> str:
        return "+".join(node.op.kind for node in self.graph.nodes)

    def infer(self, *inputs: Value | None) -> tuple[Type, ...]:
        values = self._values(inputs)
        types = (values[name].type for name in self.graph.outputs)
        return tuple(inferred for inferred in types if inferred is not None)

    def reference(self, xp: ArrayModule, *inputs: Array | None) -> tuple[Array, ...]:
        feeds = dict(zip(self.graph.inputs, inputs, strict=True))
        results = evaluate(self.graph, xp, feeds)
        return tuple(results[name] for name in self.graph.outputs)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        values = self._values(inputs)
        total = 0
        for node in self.graph.nodes:
            types = [values[name].type for name in node.outputs]
            reads = [None if name is None else values[name] for name in node.inputs]
            total += node.op.macs(reads, [t for t in types if t is not None])
        return total

    def _values(self, inputs: Sequence[Value | None]) -> dict[str, Value]:
        named = zip(self.graph.inputs, inputs, strict=True)
        return infer_values(self.graph, {name: v for name, v in named if v is not None})


@dataclass(frozen=True, slots=True)
class Copy(Op):
    """The same tensor in another layout or another device's memory."""

    domain: ClassVar[str] = "mnnpy"

    def infer(self, x: Value) -> tuple[Type, ...]:
        assert x.type is not None
        return (x.type,)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        return (x,)


OPERATORS: tuple[type[Op], ...] = (Fused, Copy)
