"""Proof by shadow execution that a memory plan keeps every value intact for as long as it is read.

Nothing is shared with ``memory.py``. Each granule of the arenas carries a tag that says whose
content it holds; the steps are walked as kernels would execute them, and every read looks at the
tags.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from mnnpy.runtime.contracts import Backend, Kernel, Task
from mnnpy.runtime.graph.types import Array, TensorType, Value
from mnnpy.runtime.ops.fused import Copy
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.plan import Plan, Slot, Step

Content: TypeAlias = tuple[range, ...]
"""Tags of a value, one per granule. A view shows part of its source's, a concatenation all of its
pieces'; whatever a kernel computes gets tags of its own."""

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
    shadow = _Shadow(plan, values, backends)
    shadow.check_places()
    if not shadow.problems:
        shadow.execute()
    return tuple(shadow.problems)


class _Shadow:
    """A plan with the tags of all its arenas."""

    def __init__(
        self, plan: Plan, values: Mapping[str, Value], backends: Sequence[Backend]
    ) -> None:
        self.plan = plan
        self.slots = plan.memory.slots
        self.values = values
        self.backends = {backend.name: backend for backend in backends}
        self.granule = _granule(plan)
        self.arenas: dict[str, Array] = {}
        self.contents: dict[str, Content] = {}
        self.next_tag = 0
        self.problems: list[str] = []

    def check_places(self) -> None:
        """Every slot is large enough, aligned, and inside its arena."""
        memory = self.plan.memory
        named = [(f"value {name!r}", slot) for name, slot in self.slots.items()]
        named += [(f"workspace of step {i}", s) for i, s in enumerate(memory.workspaces) if s]
        for what, slot in named:
            if slot.offset < 0 or slot.offset + slot.nbytes > memory.arenas.get(slot.memory, 0):
                self.problems.append(f"{what} lies outside its arena: {slot}")
        for name, slot in self.slots.items():
            tensor = self.tensor(name)
            needed = memory.layouts[name].nbytes(tensor)
            if slot.nbytes < needed:
                self.problems.append(f"value {name!r} needs {needed} bytes, has {slot.nbytes}")
            if slot.offset % tensor.dtype.itemsize:
                self.problems.append(f"value {name!r} at byte {slot.offset} is not aligned")

    def execute(self) -> None:
        """Walk all steps."""
        for memory, nbytes in self.plan.memory.arenas.items():
            self.arenas[memory] = np.full(-(-nbytes // self.granule), _SCRIBBLED, dtype=np.int64)
        for name in self.plan.inputs:
            if name in self.slots:
                self.write(name, self.fresh(name))
        for index, step in enumerate(self.plan.steps):
            self.refuse_borrowed(step, f"step {index} ({step.node})")
            self.take(step, self.plan.memory.workspaces[index], f"step {index} ({step.node})")
        for name, held in self.plan.outputs.items():
            self.read(held, f"graph output {name!r}")

    def refuse_borrowed(self, step: Step, where: str) -> None:
        """Only kernels that can follow a value from array to array may touch borrowed ones."""
        touched = self.plan.memory.borrowed.intersection((*step.node.reads, *step.node.outputs))
        for name in sorted(touched):
            if name in self.slots:
                self.problems.append(f"{name!r} is borrowed, and has a slot")
            if step.choice.scheme == "object" or not self.kernel(step).borrows:
                self.problems.append(f"{where} cannot borrow {name!r}")

    def take(self, step: Step, workspace: Slot | None, where: str) -> None:
        """One step: its reads, its workspace, its writes."""
        reads = [name for name in step.node.reads if name in self.slots]
        writes = [name for name in step.node.outputs if name in self.slots]
        for name in reads:
            self.read(name, where)
        if any(name not in self.contents for name in reads):
            return
        if workspace is not None:
            self.refuse_overlap(workspace, (*reads, *writes), f"{where} has its workspace")
            self.granules(workspace)[:] = _SCRIBBLED
        results = {
            name: self.result(step, position, name, where)
            for position, name in enumerate(step.node.outputs)
            if name in self.slots
        }
        for name, content in results.items():
            self.write(name, content)
        for name in writes:
            self.read(name, f"{where}, having written,")

    def result(self, step: Step, position: int, name: str, where: str) -> Content:
        """Content of an output, after checking that it is not written over an input."""
        aliased = {source for output, source in step.aliases if output == position}
        if aliased and isinstance(step.node.op, Concat):
            return self.joined(step, aliased, name, where)
        if aliased:
            return self.viewed(step, position, where)
        slot = self.slots[name]
        own = self.overwritable(step) if position == 0 else frozenset()
        kept = [
            source
            for place, source in enumerate(step.node.inputs)
            if source is not None and source in self.slots
            if place not in own or not _same(slot, self.slots[source])
        ]
        self.refuse_overlap(slot, kept, f"{where} writes {name!r}")
        return self.fresh(name)

    def refuse_overlap(self, slot: Slot, names: Iterable[str], what: str) -> None:
        for name in names:
            if name in self.slots and _overlap(slot, self.slots[name]):
                self.problems.append(f"{what} over {name!r}")

    def viewed(self, step: Step, position: int, where: str) -> Content:
        """What a view shows of its source; both must be the same bytes."""
        source, name = step.node.inputs[0], step.node.outputs[position]
        assert source is not None
        task = Task.of(step.node, self.values)
        offsets = task.op.view_offsets(task.inputs, task.outputs)
        if offsets is None:
            self.problems.append(f"{where} shares memory with {source!r}, and is no view of it")
            return self.fresh(name)
        start = offsets[position] * self.tensor(name).dtype.itemsize
        if self.slots[name].offset != self.slots[source].offset + start:
            self.problems.append(f"{where}: {name!r} does not lie {start} bytes into {source!r}")
        first = start // self.granule
        return _cut(self.contents[source], first, first + len(self.granules(self.slots[name])))

    def joined(self, step: Step, aliased: set[int], name: str, where: str) -> Content:
        """Content of a concatenation some of whose pieces lie in place; these must do so."""
        assert isinstance(step.node.op, Concat)
        shape = self.tensor(name).shape
        if any(dim != 1 for dim in shape[: step.node.op.axis % len(shape)]):
            self.problems.append(f"{where}: its pieces do not lie one after another")
        slot, content, start = self.slots[name], self.fresh(name), 0
        for place, source in enumerate(step.node.inputs):
            assert source is not None
            nbytes = self.tensor(source).nbytes
            part = replace(slot, offset=slot.offset + start, nbytes=nbytes)
            if place not in aliased:
                self.refuse_overlap(part, step.node.reads, f"{where} writes piece {source!r}")
            elif not _same(part, self.slots[source]):
                self.problems.append(f"{where}: piece {source!r} is not in its place")
            else:
                first, last = start // self.granule, (start + nbytes) // self.granule
                behind = _cut(content, last, slot.nbytes // self.granule)
                content = (*_cut(content, 0, first), *self.contents[source], *behind)
            start += nbytes
        return content

    def overwritable(self, step: Step) -> frozenset[int]:
        """Inputs that the step's kernel may overwrite with output 0."""
        if step.choice.scheme == "object" or isinstance(step.node.op, Copy):
            return frozenset()
        return frozenset(self.kernel(step).inplace(Task.of(step.node, self.values)))

    def kernel(self, step: Step) -> Kernel:
        kernels = self.backends[step.choice.backend].kernels(step.node.op)
        return next(kernel for kernel in kernels if kernel.scheme == step.choice.scheme)

    def read(self, name: str, where: str) -> None:
        """Complain unless all of a value still holds what was written."""
        if name not in self.slots:
            return
        if name not in self.contents:
            self.problems.append(f"{where} reads {name!r} before it is written")
            return
        held, start = self.granules(self.slots[name]), 0
        for tags in self.contents[name]:
            part = held[start : start + len(tags)]
            if not np.array_equal(part, np.arange(tags.start, tags.stop)):
                self.problems.append(f"{where} finds {name!r} overwritten")
                return
            start += len(tags)

    def write(self, name: str, content: Content) -> None:
        held, start = self.granules(self.slots[name]), 0
        for tags in content:
            held[start : start + len(tags)] = np.arange(tags.start, tags.stop)
            start += len(tags)
        self.contents[name] = content

    def fresh(self, name: str) -> Content:
        return self.tags(self.slots[name].nbytes)

    def tags(self, nbytes: int) -> Content:
        """Tags that nothing else has."""
        count = nbytes // self.granule
        self.next_tag += count
        return (range(self.next_tag - count, self.next_tag),)

    def granules(self, slot: Slot) -> Array:
        start = slot.offset // self.granule
        return self.arenas[slot.memory][start : start + slot.nbytes // self.granule]

    def tensor(self, name: str) -> TensorType:
        return self.values[name].tensor


def _granule(plan: Plan) -> int:
    """Largest number of bytes that divides every offset and size."""
    workspaces = (slot for slot in plan.memory.workspaces if slot is not None)
    slots = itertools.chain(plan.memory.slots.values(), workspaces)
    return math.gcd(*(number for slot in slots for number in (slot.offset, slot.nbytes))) or 1


def _overlap(a: Slot, b: Slot) -> bool:
    apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
    return a.memory == b.memory and not apart and a.nbytes > 0 and b.nbytes > 0


def _same(a: Slot, b: Slot) -> bool:
    return (a.memory, a.offset, a.nbytes) == (b.memory, b.offset, b.nbytes)


def _cut(content: Content, start: int, stop: int) -> Content:
    """Part of a content, by granules."""
    parts = []
    for tags in content:
        part = tags[max(start, 0) : max(stop, 0)]
        if part:
            parts.append(part)
        start, stop = start - len(tags), stop - len(tags)
    return tuple(parts)
