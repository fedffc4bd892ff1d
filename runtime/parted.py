"""Running a batch part by part, with parts side by side on several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.execution import Executable, Progress
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.preinference.planner import Planned


class PartedExecutable:
    """A plan of one part of a batch, bound once per lane; :meth:`run` runs all parts.

    Lanes share packed weights. Each has a thread, arenas of its own, and takes the next part when
    it is done with one. Nothing waits within a part, and threads without a run sleep.
    """

    rest = None

    def __init__(
        self,
        planned: Planned,
        backends: Sequence[Backend],
        packed: PackedWeights,
        threads: int | None,
        progress: Progress | None = None,
    ) -> None:
        self.plan = planned.plan
        lanes = self.plan.parts.lanes
        given = (planned, backends, packed, threads if lanes == 1 else 1)
        self._lanes = [
            Executable(*given, progress and _share(progress, *share))
            for share in _shares([1] * lanes)
        ]
        self._outputs = {
            name: planned.values[held].tensor for name, held in self.plan.outputs.items()
        }

    @property
    def first(self) -> Executable:
        """What the first part runs on: to look at the steps of one part."""
        return self._lanes[0]

    def part(self, arrays: Mapping[str, Array], index: int) -> dict[str, Array]:
        """One part of every array, as views."""
        count = self.plan.parts.count
        return {
            name: array[index * len(array) // count : (index + 1) * len(array) // count]
            for name, array in arrays.items()
        }

    def expect(self) -> None:
        """Told that a run is about to come."""
        self.first.expect()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Execute on checked feeds; the outputs belong to the caller.

        Raises
        ------
        ExecutionError
            Where a step fails; names it.
        """
        outputs = self.allocate_outputs()
        self.run_into(feeds, outputs)
        return outputs

    def allocate_outputs(self) -> dict[str, Array]:
        """Arrays for the outputs of the whole batch."""
        return {
            name: np.empty((int(t.shape[0]) * self.plan.parts.count, *t.shape[1:]), t.dtype)
            for name, t in self._outputs.items()
        }

    def run_into(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Execute on checked feeds, with results in given arrays; raises as :meth:`run` does."""
        batch = _Batch(self, feeds, outputs)
        with self.first.entered():
            helping = [
                _helpers(os.getpid()).submit(batch.take_parts, lane) for lane in self._lanes[1:]
            ]
            try:
                batch.take_parts(self.first)
            finally:
                batch.left.clear()
                started = [helper for helper in helping if not helper.cancel()]
                wait(started)
        for helper in started:
            helper.result()  # What is no error of a step, as the end of the process, ends the run.
        for index, error in batch.failures:
            self.first.explain_failure(self.part(feeds, index), error)


class _Batch:
    """One run: its parts that are not yet taken, and what went wrong."""

    def __init__(
        self, owner: PartedExecutable, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> None:
        self._owner, self._feeds, self._outputs = owner, feeds, outputs
        self.left = deque(range(owner.plan.parts.count))
        self.failures: list[tuple[int, Exception]] = []

    def take_parts(self, lane: Executable) -> None:
        """Run parts on a lane until none is left, or one has failed."""
        with np.errstate(all="ignore"):
            while not self.failures:
                try:
                    index = self.left.popleft()
                except IndexError:
                    return
                try:
                    outputs = self._owner.part(self._outputs, index)
                    lane.execute(self._owner.part(self._feeds, index), outputs)
                    lane.write_outputs(outputs)
                except Exception as error:
                    self.failures.append((index, error))


def _shares(sizes: Sequence[int]) -> list[tuple[float, float]]:
    """Where each of some tasks begins within all of them, and which part of them it is."""
    total = sum(sizes) or 1
    begins = accumulate(sizes[:-1], initial=0)
    return [(begin / total, size / total) for begin, size in zip(begins, sizes, strict=True)]


def _share(progress: Progress, start: float, size: float) -> Progress:
    """The progress of one task, told as part of that of all."""
    return lambda fraction, now: progress(start + size * fraction, now)


@cache
def _helpers(process: int) -> ThreadPoolExecutor:
    """Threads for the lanes after the first, of all sessions of a process."""
    return ThreadPoolExecutor(os.cpu_count(), "mnnpy-part")


class JoinedExecutable:
    """Parts of a batch, and the whole batch behind the value at which they join."""

    rest = None

    def __init__(self, parts: PartedExecutable, behind: Executable) -> None:
        self.plan = parts.plan
        self.parts = parts
        self.behind = behind
        self._between = parts.allocate_outputs()

    def expect(self) -> None:
        """Told that a run is about to come."""
        self.parts.expect()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Execute on checked feeds; the outputs belong to the caller.

        Raises
        ------
        ExecutionError
            Where a step fails; names it.
        """
        return self.behind.run(self.run_parts(feeds))

    def run_parts(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Execute all parts; what they have made is there until the next run."""
        self.parts.run_into(feeds, self._between)
        return self._between


Bound: TypeAlias = Executable | PartedExecutable | JoinedExecutable
"""A plan that is bound to memory."""


def bind_plan(
    planned: Planned,
    backends: Sequence[Backend],
    packed: PackedWeights,
    threads: int | None,
    progress: Progress | None = None,
) -> Bound:
    """Bind a plan of a whole, or of a part, and what follows it."""
    given = (backends, packed, threads)
    if planned.plan.parts.count == 1:
        return Executable(planned, *given, progress)
    if planned.then is None:
        return PartedExecutable(planned, *given, progress)
    steps = [len(stage.steps) for stage in planned.plan.stages]
    told = [progress and _share(progress, *share) for share in _shares(steps)]
    parts = PartedExecutable(planned, *given, told[0])
    return JoinedExecutable(parts, Executable(planned.then, *given, told[1]))
