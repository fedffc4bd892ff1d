"""Regions: an anchor (convolution, matrix product) with the elementwise chain behind it, and trees
of elementwise operators.

A backend proposes regions with :func:`anchored_chains` and :func:`elementwise_trees`; selection
weighs them against their parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import TensorType, Value
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Add, Elementwise
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul

LONGEST_EPILOGUE = 8
"""Nodes behind an anchor. Every length is weighed, so that long chains would cost their square."""

LARGEST_TREE = 16
"""Elementwise nodes in one region: what one kernel holds in registers and compiles quickly."""

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


def elementwise_trees(
    graph: Graph,
    values: Mapping[str, Value],
    joined: Collection[type[Op]],
    apart: Collection[str] = (),
) -> Iterator[tuple[Node, ...]]:
    """Every largest set of two or more nodes with one result, values inside having one reader.

    They have one shape, too, so that none is computed twice.

    Parameters
    ----------
    joined : operators to join.
    apart : names of nodes to leave out.
    """
    trees: dict[str, list[Node]] = {}
    outputs = frozenset(graph.outputs)
    for node in graph.nodes:
        if type(node.op) not in joined or node.name in apart or values[node.outputs[0]].constant:
            continue
        tree = [node]
        shape = _shape(values, node.outputs[0])
        for name in dict.fromkeys(node.reads):
            inner = trees.get(name)
            if inner is None or len(graph.consumers[name]) != 1 or name in outputs:
                continue
            if _shape(values, name) == shape and len(inner) + len(tree) <= LARGEST_TREE:
                tree = [*inner, *tree]
                del trees[name]
        trees[node.outputs[0]] = tree
    for tree in trees.values():
        if len(tree) > 1:
            yield tuple(sorted(tree, key=lambda node: graph.places[node.name]))


def _shape(values: Mapping[str, Value], name: str) -> Shape | None:
    known = values[name].type
    return known.shape if isinstance(known, TensorType) else None


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


def is_anchored(graph: Graph) -> bool:
    """Whether a region is an anchor with a chain behind it: what :func:`split_anchored` takes."""
    (anchor, *rest), running = graph.nodes, graph.nodes[0].outputs[0]
    if not all(name in graph.inputs for name in anchor.reads):
        return False
    for node in rest:
        if not isinstance(node.op, Elementwise):
            return False
        others = [name for name in node.reads if name != running]
        if len(node.reads) != len(others) + 1 or any(n not in graph.inputs for n in others):
            return False
        running = node.outputs[0]
    return True


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
    split = _split_bias(inner, places, tuple(steps))
    row = _added_row(task, split) if split.bias is None and split.epilogue else None
    return split if row is None else replace(split, bias=row, epilogue=split.epilogue[1:])


def _added_row(task: Task, split: Anchored) -> int | None:
    """The constant row that a matrix product's first step adds, where it does."""
    first = split.epilogue[0]
    if not isinstance(split.task.op, MatMul | Gemm) or not isinstance(first.op, Add):
        return None
    for operand in first.operands:
        known = None if operand in (None, RUNNING) else task.known(operand)
        if known is not None and known.ndim and known.size == task.output().shape[-1]:
            return operand if known.shape[-1] == known.size else None
    return None


def _split_bias(
    task: Task, places: tuple[int | None, ...], steps: tuple[EpilogueStep, ...]
) -> Anchored:
    bias = places[2] if len(places) > 2 else None
    scaled = isinstance(task.op, Gemm) and task.op.beta != 1
    if isinstance(task.op, Conv | ConvTranspose | Gemm) and bias is not None and not scaled:
        bare = Task(task.op, task.inputs[:2], task.outputs)
        return Anchored(bare, places[:2], bias, steps)
    return Anchored(task, places, None, steps)
