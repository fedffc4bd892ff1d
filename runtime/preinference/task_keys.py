"""Which tasks are alike, so that one is weighed, or timed, for all of them."""

from __future__ import annotations

from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.fused import Fused


def task_key(task: Task) -> object:
    """Equal for tasks that every kernel treats alike: operator, types, and small contents."""
    return (
        task.op if not isinstance(task.op, Fused) else _graph_key(task.op.graph),
        tuple(_value_key(value) for value in task.inputs),
        task.outputs,
    )


def _graph_key(graph: Graph) -> object:
    number: dict[str | None, int] = {None: -1}
    for name in graph.inputs:
        number[name] = len(number)
    keys = []
    for node in graph.nodes:
        for written in node.outputs:
            number[written] = len(number)
        keys.append((node.op, tuple(number[name] for name in node.inputs)))
    return tuple(keys)


def _value_key(value: Value | None) -> object:
    if value is None:
        return None
    known = value.known
    if known is None:
        return value.type
    small = known.dtype != object and known.nbytes <= 64
    return (value.type, known.tobytes() if small else True)
