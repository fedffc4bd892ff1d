"""Proof by shadow execution that a memory plan keeps every value intact for as long as it is read.

Nothing is shared with ``memory.py``. Every run of bytes in the arenas carries a tag that says whose
content it is; the steps of a plan are walked as a kernel would execute them, and each read looks
at the tags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnnpy.runtime.contracts import Backend, Task
from mnnpy.runtime.graph.types import TensorType, UnknownType, Value
from mnnpy.runtime.ops.fused import Copy
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.plan import Plan, Slot, Step

Tags = NDArray[np.int64]

_SCRIBBLED = -1


def check_memory(
    plan: Plan, values: Mapping[str, Value], backends: Sequence[Backend]
) -> tuple[str, ...]:
    """What is wrong with the plan's memory, in words; empty where nothing is.

    Parameters
    ----------
    values : what was inferred while planning (``Planned.values``).
    backends : those that the plan uses; their kernels say which inputs they may overwrite.
    """
    return _Shadow(plan, values, {backend.name: backend for backend in backends}).problems()


@dataclass(frozen=True, slots=True)
class _Shadow:
    """Tags of all arenas, in granules that divide every offset and size of the plan."""

    plan: Plan
    values: Mapping[str, Value]
    backends: Mapping[str, Backend]
    arenas: dict[str, Tags] = field(default_factory=dict)
    contents: dict[str, Tags] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def problems(self) -> tuple[str, ...]:
        self._check_bounds()
        if self.found:
            return tuple(self.found)
        for memory, nbytes in self.plan.memory.arenas.items():
            self.arenas[memory] = np.zeros(-(-nbytes // self._granule), dtype=np.int64)
        for name in self.plan.inputs:
            self._write(name, self._fresh(name))
        for index, step in enumerate(self.plan.steps):
            self._execute(index, step)
        for name, held in self.plan.outputs.items():
            self._read(held, f"graph output {name!r} at the end")
        return tuple(self.found)

    @property
    def _granule(self) -> int:
        return _granule(self.plan)

    def _check_bounds(self) -> None:
        memory = self.plan.memory
        named = [(f"value {name!r}", slot) for name, slot in memory.slots.items()]
        named += [(f"workspace of step {i}", s) for i, s in enumerate(memory.workspaces) if s]
        for what, slot in named:
            if slot.offset < 0 or slot.offset + slot.nbytes > memory.arenas.get(slot.memory, 0):
                self.found.append(f"{what} lies outside its arena: {slot}")
        for name, slot in memory.slots.items():
            tensor = self._type(name)
            needed = memory.layouts[name].nbytes(tensor)
            if slot.nbytes < needed:
                self.found.append(f"value {name!r} needs {needed} bytes, has {slot.nbytes}")
            if slot.offset % tensor.dtype.itemsize:
                self.found.append(f"value {name!r} at {slot.offset} is not aligned to {tensor}")

    def _execute(self, index: int, step: Step) -> None:
        where = f"step {index} ({step.node})"
        for name in step.node.reads:
            self._read(name, where)
        workspace = self.plan.memory.workspaces[index]
        if workspace is not None:
            self._refuse_overlap(workspace, "workspace", step.node.reads, where)
            self._refuse_overlap(workspace, "workspace", step.node.writes, where)
            self._view(workspace)[:] = _SCRIBBLED
        written = {
            name: self._result(step, position, name, where)
            for position, name in enumerate(step.node.outputs)
            if name is not None and name in self.plan.memory.slots
        }
        for name, tags in written.items():
            self._write(name, tags)
        for name in written:
            self._read(name, f"{where}, just written,")

    def _result(self, step: Step, position: int, name: str, where: str) -> Tags:
        """Content of an output, after checking that nothing it overwrites is read meanwhile."""
        aliased = {source for output, source in step.aliases if output == position}
        concatenated = isinstance(step.node.op, Concat)
        slot = self.plan.memory.slots[name]
        if aliased and not concatenated:
            return self._viewed(step, position, where)
        allowed = aliased if concatenated else self._overwritable(step) if position == 0 else set()
        for place, source in enumerate(step.node.inputs):
            if source is None or source not in self.plan.memory.slots:
                continue
            taken = self.plan.memory.slots[source]
            in_place = place in allowed and (
                concatenated or (taken.offset, taken.nbytes) == (slot.offset, slot.nbytes)
            )
            if _overlap(slot, taken) and not in_place:
                self.found.append(f"{where} writes {name!r} over its input {source!r}")
        if concatenated and aliased:
            return self._joined(step, aliased, name, where)
        return self._fresh(name)

    def _viewed(self, step: Step, position: int, where: str) -> Tags:
        """What a view shows of its source; the bytes must be the same ones."""
        source, name = step.node.inputs[0], step.node.outputs[position]
        assert source is not None and name is not None
        offsets = step.node.op.view_offsets(*self._signature(step))
        content = self.contents[source]
        if offsets is None:
            self.found.append(f"{where} shares memory with {source!r} and is no view of it")
            return content
        start = offsets[position] * self._type(name).dtype.itemsize
        slots = self.plan.memory.slots
        if slots[name].offset != slots[source].offset + start:
            self.found.append(f"{where}: {name!r} does not lie {start} bytes into {source!r}")
        first = start // self._granule
        return content[first : first + slots[name].nbytes // self._granule]

    def _joined(self, step: Step, aliased: set[int], name: str, where: str) -> Tags:
        """Content of a concatenation; pieces that claim to be in place must lie in their place."""
        assert isinstance(step.node.op, Concat)
        axis = step.node.op.axis % len(self._type(name).shape)
        if any(dim != 1 for dim in self._type(name).shape[:axis]):
            self.found.append(f"{where} has pieces in place that do not lie one after another")
        joined, start = self._fresh(name), 0
        slots = self.plan.memory.slots
        for place, source in enumerate(step.node.inputs):
            assert source is not None
            nbytes = self._value(source).tensor.nbytes
            if place in aliased:
                if slots[source].offset != slots[name].offset + start:
                    self.found.append(f"{where}: piece {source!r} is not in its place")
                first = start // self._granule
                joined[first : first + nbytes // self._granule] = self.contents[source]
            start += nbytes
        return joined

    def _overwritable(self, step: Step) -> set[int]:
        """Inputs that the step's kernel may overwrite with output 0."""
        if step.choice.scheme == "object" or isinstance(step.node.op, Copy):
            return set()
        kernels = self.backends[step.choice.backend].kernels(step.node.op)
        kernel = next(kernel for kernel in kernels if kernel.scheme == step.choice.scheme)
        return set(kernel.inplace(Task(step.node.op, *self._signature(step))))

    def _signature(
        self, step: Step
    ) -> tuple[tuple[Value | None, ...], tuple[TensorType | UnknownType, ...]]:
        inputs = tuple(None if name is None else self._value(name) for name in step.node.inputs)
        return inputs, tuple(self._type(name) for name in step.node.writes)

    def _refuse_overlap(self, slot: Slot, what: str, names: Sequence[str], where: str) -> None:
        for name in names:
            if name in self.plan.memory.slots and _overlap(slot, self.plan.memory.slots[name]):
                self.found.append(f"{where}: the {what} overlaps {name!r}")

    def _read(self, name: str, where: str) -> None:
        """Complain unless all bytes of a value still hold what was written."""
        slot = self.plan.memory.slots.get(name)
        if slot is None:
            return
        if name not in self.contents:
            self.found.append(f"{where} reads {name!r} before it is written")
        elif not np.array_equal(self._view(slot), self.contents[name]):
            self.found.append(f"{where} finds {name!r} overwritten")

    def _write(self, name: str, tags: Tags) -> None:
        slot = self.plan.memory.slots.get(name)
        if slot is not None:
            self._view(slot)[:] = tags
            self.contents[name] = tags
    ...
