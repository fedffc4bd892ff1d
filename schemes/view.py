"""Reshaping without moving: the output lies where the input lies."""

from __future__ import annotations

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule


class View(Scheme):
    """Nothing to do where memory planning made the output a view; a copy where it could not."""

    name = "view"
    operators = (Op,)

    def reject(self, task: Task) -> str | None:
        if task.op.view_offsets(task.inputs, task.outputs) is None:
            return "the output is no view of the input"
        return "the input is a constant" if task.known(0) is not None else None

    def work(self, task: Task, config: Config) -> Work:
        return Work(0, 0, 0)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        return nothing if 0 in buffers.aliased else copying(self.pairs(task, buffers))

    def pairs(self, task: Task, buffers: Buffers) -> list[tuple[Array, Array]]:
        """Every output and the part of the input that it shows, both flat."""
        (source, *_), offsets = buffers.inputs, task.op.view_offsets(task.inputs, task.outputs)
        assert source is not None and offsets is not None
        flat = source.reshape(-1)
        return [
            (target.reshape(-1), flat[start : start + target.size])
            for target, start in zip(buffers.outputs, offsets, strict=True)
        ]


def nothing() -> None:
    """Work that was done by placing values well."""


def copying(pairs: list[tuple[Array, Array]]) -> Run:
    """Copy every (target, source)."""

    def copy() -> None:
        for target, source in pairs:
            target[...] = source

    return copy
