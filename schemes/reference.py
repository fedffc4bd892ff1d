"""The scheme of last resort: the operator's own reference, copied into place."""

from __future__ import annotations

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import ArrayModule


class Reference(Scheme):
    """Textbook array code; right for every operator, fast for few."""

    name = "reference"
    operators = (Op,)
    last_resort = True

    def work(self, task: Task, config: Config) -> Work:
        """Temporaries of textbook code: about four passes over the data, and two per product."""
        return Work(0, 4 * task.nbytes + 2 * task.macs * task.output().dtype.itemsize, 10)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        op, inputs, outputs = task.op, buffers.inputs, buffers.outputs

        def run() -> None:
            results = op.reference(xp, *inputs)
            for target, result in zip(outputs, results, strict=False):
                target[...] = result

        return run
