"""Regions: an anchor (convolution, matrix product) with the elementwise chain behind it.

A backend proposes regions with :func:`anchored_chains`; selection weighs them against their parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm

LONGEST_EPILOGUE = 8
"""Nodes behind an anchor. Every length is weighed, so that long chains would cost their square."""

RUNNING = -1
"""Operand that stands for the value on its way through an epilogue."""


def anchored_chains(
    graph: Graph,
    values: Mapping[str, Value],
    anchors: Collection[type[Op]],
    chained: Collection[type[Op]],
) -> Iterator[tuple[Node, ...]]:
    """Every chain of an anchor and one or more elementwise nodes behind it, longest first.

    A chain follows values that one node only reads, whose type does not change along the way.
    """
    for node in graph.nodes:
        if type(node.op) not in anchors or len(node.outputs) != 1:
            continue
        chain = [node]
        while len(chain) <= LONGEST_EPILOGUE:
            following = _next_in_chain(graph, values, chain, chained)
            if following is None:
                break
            chain.append(following)
        for length in range(len(chain), 1, -1):
            yield tuple(chain[:length])


def _next_in_chain(
    graph: Graph, values: Mapping[str, Value], chain: list[Node], chained: Collection[type[Op]]
) -> Node | None:
    (running,) = chain[-1].outputs
    readers = graph.consumers.get(running, ())
    if len(readers) != 1 or running in graph.outputs:
        return None
    reader = readers[0]
    if type(reader.op) not in chained or len(reader.outputs) != 1:
        return None
    kept = values[reader.outputs[0]].type == values[running].type
    return reader if kept and reader.inputs.count(running) == 1 else None


@dataclass(frozen=True, slots=True)
class EpilogueStep:
    """An elementwise operator; operands are region inputs, ``RUNNING`` or None (absent)."""

    op: Op
    operands: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Anchored:
    """A task as a bare product with what follows it.

    Parameters
    ----------
    task : the anchor alone, without its bias.
    positions : for each anchor input, the region input that feeds it.
    bias : region input that is added first, along the output channels or broadcast.
    """

    task: Task
    positions: tuple[int | None, ...]
    bias: int | None
    epilogue: tuple[EpilogueStep, ...]

    @property
    def source(self) -> int:
        """Region input that the anchor reads first."""
        position = self.positions[0]
        assert position is not None
        return position

    @property
    def bias_op(self) -> Op:
        return Add()


def split_anchored(task: Task) -> Anchored:
    """Split a task (plain operator or anchored region) into product, bias and epilogue."""
    if not isinstance(task.op, Fused):
        return _split_bias(task, tuple(range(len(task.inputs))), ())
    graph = task.op.graph
    position = {name: index for index, name in enumerate(graph.inputs)}
    anchor, *rest = graph.nodes
    (running,) = anchor.outputs
    steps = []
    for node in rest:
        operands = tuple(
            None if name is None else RUNNING if name == running else position[name]
            for name in node.inputs
        )
        steps.append(EpilogueStep(node.op, operands))
        (running,) = node.outputs
    places = tuple(None if name is None else position[name] for name in anchor.inputs)
    inputs = tuple(None if place is None else task.inputs[place] for place in places)
    inner = Task(anchor.op, inputs, (task.outputs[0],))
    return _split_bias(inner, places, tuple(steps))


def _split_bias(
    task: Task, places: tuple[int | None, ...], steps: tuple[EpilogueStep, ...]
) -> Anchored:
    bias = places[2] if len(places) > 2 else None
    scaled = isinstance(task.op, Gemm) and task.op.beta != 1
    if isinstance(task.op, Conv | ConvTranspose | Gemm) and bias is not None and not scaled:
        bare = Task(task.op, task.inputs[:2], task.outputs)
        return Anchored(bare, places[:2], bias, steps)
    return Anchored(task, places, None, steps)
