"""Binding a plan: arenas, packed weights, programs; and running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np

from mnnpy.runtime.contracts import (
    Backend,
    BorrowingRun,
    BoundStep,
    Buffers,
    Kernel,
    Program,
    Run,
    Task,
)
from mnnpy.runtime.errors import ExecutionError, PlanError
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.layouts import PLAIN, Layout, plain_content, write_content
from mnnpy.runtime.ops.fused import Copy
from mnnpy.runtime.packed_weights import (
    Held,
    PackedWeights,
    constant_key,
    packed_constants,
    packing_key,
)
from mnnpy.runtime.preinference.plan import Slot, Step
from mnnpy.runtime.preinference.planner import HOST, Planned
from mnnpy.runtime.programs import SequentialProgram

Before: TypeAlias = Callable[[Step, Mapping[str, Array]], Mapping[str, Array] | None]
"""Called with a step and what it reads; may return other content for some of it, by name."""

After: TypeAlias = Callable[[Step, Mapping[str, Array]], object]
"""Called with a step and what it has written."""

Progress: TypeAlias = Callable[[float, str], object]
"""Told which part of a plan is bound, 0 to 1, and what is being packed and compiled next."""


class Executable:
    """A plan bound to memory: calling :meth:`run` executes and nothing else."""

    def __init__(
        self,
        planned: Planned,
        backends: Sequence[Backend],
        packed: PackedWeights,
        threads: int | None,
        progress: Progress | None = None,
    ) -> None:
        self.plan = planned.plan
        self.rest = planned.rest
        self.values = planned.values
        self.threads = threads
        self._packed = packed
        self._held: list[Held] = []
        self._backends = {backend.name: backend for backend in backends}
        self._by_memory: dict[str, Backend] = {}
        for backend in backends:
            self._by_memory.setdefault(backend.describe().memory, backend)
        self._arenas = {m: self._arena(m, n) for m, n in self.plan.memory.arenas.items()}
        self.objects: dict[str, Any] = {}
        self._arrays = {name: self._array(name, slot) for name, slot in self._slots.items()}
        self._at_home = {name: self._home(name) for name in self.plan.memory.borrowed}
        self._arrays |= self._at_home
        self._running = [self._backends[name] for name in self.plan.backends]
        self._programs, self.step_runs = self._bind(progress or _silent)
        self._movers = {name: self._mover(name) for name in self._at_home}
        inputs, outputs = self.plan.inputs, self.plan.outputs
        self._feeding = [name for name in inputs if name in self._slots]
        self._borrowing = [name for name in inputs if name in self._at_home]
        self._lending = {name: held for name, held in outputs.items() if held in self._at_home}

    def expect(self) -> None:
        """Told that a run is about to come."""
        for program in self._programs[:1]:
            program.expect()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Execute on checked feeds; the outputs belong to the caller.

        Raises
        ------
        ExecutionError
            Where a step fails; names it.
        """
        try:
            with self.entered():
                lent = {name: np.empty_like(self._at_home[h]) for name, h in self._lending.items()}
                self.execute(feeds, lent)
                return {n: lent[n] if n in lent else self._fetch(n) for n in self.plan.outputs}
        except Exception as error:
            self.explain_failure(feeds, error)

    def execute(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Call all programs on feeds, within :meth:`entered`.

        Parameters
        ----------
        outputs : arrays, by output, for those that the plan borrows.
        """
        lent = {name: np.require(feeds[name], requirements=("C", "A")) for name in self._borrowing}
        for name, array in lent.items():
            self._movers[name](array)
        for name, held in self._lending.items():
            self._movers[held](outputs[name])
        self._feed(feeds, self._feeding)
        for program in self._programs:
            program()

    def explain_failure(self, feeds: Mapping[str, Array], error: Exception) -> NoReturn:
        """Raise what went wrong: a program cannot say which step failed, but that fails again."""
        self.run_stepwise(feeds)
        raise ExecutionError(f"the run failed, step by step it did not: {error}") from error

    def run_stepwise(
        self,
        feeds: Mapping[str, Array],
        before: Before | None = None,
        after: After | None = None,
    ) -> dict[str, Any]:
        """Execute step by step, calling back around each. Raises as :meth:`run` does."""
        with self.entered():
            self.feed(feeds)
            for step, run in zip(self.plan.steps, self.step_runs, strict=True):
                if before is not None:
                    self._replace(before(step, self.contents(step.node.reads)) or {})
                try:
                    run()
                except Exception as error:
                    raise ExecutionError(
                        f"{step.node} failed on {step.choice.backend} "
                        f"with scheme {step.choice.scheme}: {error}"
                    ) from error
                if after is not None:
                    after(step, self.contents(step.node.outputs))
            return self.fetch()

    def entered(self) -> ExitStack:
        """Every backend that runs steps, ready to run."""
        stack = ExitStack()
        for backend in self._running:
            stack.enter_context(backend.running(self.threads))
        return stack

    def feed(self, feeds: Mapping[str, Array]) -> None:
        """Make ready for single steps: every value, borrowed ones too, lies in our memory."""
        for name, array in self._at_home.items():
            self._movers[name](array)
        self._feed(feeds, [*self._feeding, *self._borrowing])

    def _feed(self, feeds: Mapping[str, Array], names: Sequence[str]) -> None:
        for name in names:
            np.copyto(self._arrays[name], feeds[name])
        for name in self.plan.objects:
            if name in feeds:
                self.objects[name] = feeds[name]

    def fetch(self) -> dict[str, Any]:
        """The outputs of a run step by step; they belong to the caller."""
        return {name: self._fetch(name) for name in self.plan.outputs}

    def write_outputs(self, targets: Mapping[str, Array]) -> None:
        """Copy outputs that are not borrowed into arrays; none of them is an object."""
        for name, held in self.plan.outputs.items():
            if name not in self._lending:
                known = held not in self._arrays
                targets[name][...] = self.values[held].known if known else self._arrays[held]

    def contents(self, names: Sequence[str]) -> dict[str, Any]:
        """What some values hold now, as plain host arrays that later steps may overwrite."""
        found = {}
        for name in names:
            if name in self._arrays:
                held = self._backend_of(name).to_host(self._arrays[name])
                shape = self.values[name].shape
                channels = int(shape[1]) if len(shape) > 1 else None
                found[name] = plain_content(held, self._layout(name), channels)
            elif name in self.objects:
                found[name] = self.objects[name]
            elif self.values[name].constant:
                found[name] = self.values[name].known
        return found

    def _replace(self, contents: Mapping[str, Any]) -> None:
        """Overwrite what some values hold now; constants stay as they are."""
        for name, content in contents.items():
            if name in self._arrays:
                backend = self._backend_of(name)
                held = backend.to_host(self._arrays[name])
                write_content(content, held, self._layout(name))
                backend.copy(held, self._arrays[name])
            elif name in self.objects:
                self.objects[name] = content

    @property
    def _slots(self) -> Mapping[str, Slot]:
        return self.plan.memory.slots

    def _arena(self, memory: str, nbytes: int) -> Array:
        try:
            return self._by_memory[memory].allocate(max(nbytes, 1))
        except (MemoryError, ValueError, OverflowError) as error:
            raise PlanError(
                f"the plan needs {nbytes} bytes of {memory} memory, which cannot be had: {error}"
            ) from error

    def _array(self, name: str, slot: Slot) -> Array:
        tensor = self.values[name].tensor
        shape = self.plan.memory.layouts[name].physical_shape(tensor)
        backend = self._by_memory[slot.memory]
        return backend.view(self._arenas[slot.memory], slot.offset, shape, tensor.dtype)

    def _home(self, name: str) -> Array:
        """Where a borrowed value lies while steps run one by one."""
        tensor, host = self.values[name].tensor, self._by_memory[HOST]
        shape = PLAIN.physical_shape(tensor)
        return host.view(host.allocate(max(tensor.nbytes, 1)), 0, shape, tensor.dtype)

    def _mover(self, name: str) -> Callable[[Array], None]:
        """What makes the steps that use a borrowed value find it elsewhere."""
        movers = [
            cast(BorrowingRun, run).mover(self._at_home[name])
            for step, run in zip(self.plan.steps, self.step_runs, strict=True)
            if name in step.node.reads or name in step.node.outputs
        ]

        def move(array: Array) -> None:
            for mover in movers:
                mover(array)

        return move

    def _backend_of(self, name: str) -> Backend:
        return self._by_memory[self._slots[name].memory if name in self._slots else HOST]

    def _layout(self, name: str) -> Layout:
        return self.plan.memory.layouts.get(name, PLAIN)

    def _fetch(self, name: str) -> Any:
        """An output that belongs to the caller."""
        held = self.plan.outputs[name]
        if held in self._arrays:
            return self._arrays[held].copy()
        return _owned(self.objects[held] if held in self.plan.objects else self.values[held].known)

    def _bind(self, progress: Progress) -> tuple[list[Program], list[Run]]:
        """Programs of consecutive steps on one backend, and the same work step by step."""
        programs: list[Program] = []
        runs: list[Run] = []
        indexed = list(enumerate(self.plan.steps))
        for backend, group in groupby(indexed, key=lambda entry: _runner(entry[1])):
            members = list(group)
            if backend is None:
                singles = [self._special(step) for _, step in members]
                programs.append(SequentialProgram(singles))
                runs.extend(singles)
            else:
                bound = self._bound_steps(members, progress)
                program = self._backends[backend].bind(bound, self.threads)
                programs.append(program)
                runs.extend(program.steps)
        return programs, runs

    def _special(self, step: Step) -> Run:
        if step.choice.scheme == "object":
            return partial(self._run_object_step, step.node)
        (source,), (target,) = step.node.reads, step.node.outputs
        backend = self._backends[step.choice.backend]
        return partial(backend.copy, self._arrays[source], self._arrays[target])

    def _run_object_step(self, node: Node) -> None:
        inputs = [None if name is None else self._content(name) for name in node.inputs]
        for name, result in zip(node.outputs, node.op.reference(np, *inputs), strict=False):
            if name in self._arrays:
                self._arrays[name][...] = result
            else:
                self.objects[name] = np.asarray(result) if np.isscalar(result) else result

    def _content(self, name: str) -> Any:
        """A value for a step on objects, which may keep it while later steps reuse the arena."""
        if name in self._arrays:
            return self._arrays[name].copy()
        return self.objects[name] if name in self.objects else self.values[name].known

    def _bound_steps(
        self, members: Sequence[tuple[int, Step]], progress: Progress
    ) -> Iterator[BoundStep]:
        """Bind one step after the other, as the backend takes them."""
        for index, step in members:
            progress(index / len(self.plan.steps), f"{step.choice.scheme}: {step.node.name}")
            yield self._bound_step(index, step)

    def _bound_step(self, index: int, step: Step) -> BoundStep:
        backend = self._backends[step.choice.backend]
        task = Task.of(step.node, self.values)
        kernel = find_kernel(backend, step, task)
        config = step.choice.config
        packed_inputs = kernel.packed_inputs(task, config)
        packing = kernel.packing_config(config)
        packed = self._shared(
            (step.choice.backend, step.choice.scheme, packing, packing_key(task, step.node)),
            lambda: packed_constants(kernel, task, config),
        )
        inputs = tuple(
            None if position in packed_inputs else self._input(backend, name)
            for position, name in enumerate(step.node.inputs)
        )
        workspace = self.plan.memory.workspaces[index]
        scratch = Slot(backend.describe().memory, 0, 0, 0, 0) if workspace is None else workspace
        buffers = Buffers(
            inputs,
            tuple(self._arrays[name] for name in step.node.outputs),
            backend.view(
                self._arenas[scratch.memory], scratch.offset, (scratch.nbytes,), np.dtype(np.uint8)
            ),
            packed,
            frozenset(position for _, position in step.aliases),
        )
        return BoundStep(step.node, task, step.choice, kernel, buffers)

    def _input(self, backend: Backend, name: str | None) -> Array | None:
        if name is None:
            return None
        if name in self._arrays:
            return self._arrays[name]
        known = self.values[name].known
        key = (backend.describe().memory, constant_key(name, known))
        (array,) = self._shared(key, lambda: (backend.upload(known),))
        return array

    def _shared(self, key: object, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
        """Arrays of the session's other plans under this key, made where there are none."""
        held = self._packed.get(key, make)
        self._held.append(held)
        return held.arrays


def find_kernel(backend: Backend, step: Step, task: Task) -> Kernel:
    """The kernel that a step names. Raises ``PlanError`` where the backend has no such one."""
    for kernel in backend.kernels(step.node.op):
        if kernel.scheme == step.choice.scheme:
            # On few threads nothing is refused for being too little work for many.
            reason = kernel.reject(task, backend.describe().limited(1))
            if reason is None:
                return kernel
            raise PlanError(f"{step.node}: scheme {kernel.scheme} on {backend.name}: {reason}")
    raise PlanError(f"{step.node}: backend {backend.name} has no scheme {step.choice.scheme}")


def _silent(fraction: float, now: str) -> None:
    """The progress that nobody wants to hear of."""


def _runner(step: Step) -> str | None:
    """Backend that binds the step; None for steps that are run from here."""
    plain_copy = isinstance(step.node.op, Copy) and (
        step.choice.input_layouts == step.choice.output_layouts
    )
    return None if plain_copy or step.choice.scheme == "object" else step.choice.backend


def _owned(value: Any) -> Any:
    """The value in memory that belongs to the caller."""
    if isinstance(value, list):
        return [_owned(element) for element in value]
    return value.copy() if isinstance(value, np.ndarray) else value
