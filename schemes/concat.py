"""Concatenation by writing each piece where it belongs; pieces produced in place cost nothing."""

from __future__ import annotations

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import ArrayModule
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.schemes.view import copying, nothing


class ConcatInPlace(Scheme):
    """Copy what the memory plan could not place inside the output."""

    name = "concat"
    operators = (Concat,)

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, task.nbytes, len(task.inputs))

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        assert isinstance(task.op, Concat)
        y = buffers.outputs[0]
        axis = task.op.axis % y.ndim
        pairs, start = [], 0
        for index, piece in enumerate(buffers.inputs):
            assert piece is not None
            stop = start + piece.shape[axis]
            if index not in buffers.aliased:
                pairs.append((y[(slice(None),) * axis + (slice(start, stop),)], piece))
            start = stop
        return copying(pairs) if pairs else nothing
