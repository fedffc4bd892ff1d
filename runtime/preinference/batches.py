"""Planning a batch: as a whole, or part by part with the tensors of one part in the caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.errors import MnnpyError, PlanError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import TensorType, Type, Value
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Parts
from mnnpy.runtime.preinference.planner import HOST, Planned, make_plan
from mnnpy.runtime.preinference.selection import Measure


def plan_batch(
    graph: Graph,
    inputs: Mapping[str, Value],
    backends: Sequence[Backend],
    constraints: Constraints | None = None,
    threads: int | None = None,
    measure: Measure | None = None,
) -> Planned:
    """Plan a run of a batch in the way that is predicted to take least time.

    Ways are the whole batch at once, one part per thread, a few samples at a time, and sample by
    sample. In parts, every thread runs whole parts by itself, so that none waits for another within
    a part. That is weighed where the graph treats samples alone and the first backend's device
    knows its cache.

    Parameters
    ----------
    inputs, backends, constraints, measure : as for :func:`make_plan`.
    threads : most threads of the run; None leaves it to the device.

    Returns
    -------
    The plan of the whole, or of one part; ``plan.parts`` says which.

    Raises
    ------
    PlanError
        As :func:`make_plan` does, and where the constraints want parts that cannot be had.
    """
    task = _Batch(graph, inputs, backends, constraints or Constraints(), threads, measure)
    wanted = task.constraints.parts
    if wanted is not None and wanted > 1:
        found = task.in_parts(wanted)
        if isinstance(found, str):
            raise PlanError(f"the batch cannot run in {wanted} parts: {found}")
        return found
    whole = task.whole()
    if wanted == 1 or task.size < 2 or not task.knows_its_cache:
        return whole
    tried = [task.in_parts(count) for count in task.counts()]
    ways = [whole, *(way for way in tried if isinstance(way, Planned))]
    reason = tried[-1] if isinstance(tried[-1], str) else None
    best = min(ways, key=lambda way: way.plan.seconds)
    weighed = tuple((way.plan.parts.count, way.plan.seconds) for way in ways)
    parts = replace(best.plan.parts, weighed=weighed, reason=reason)
    return replace(best, plan=replace(best.plan, parts=parts))


_FEW_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is to be planned."""

    graph: Graph
    inputs: Mapping[str, Value]
    backends: Sequence[Backend]
    constraints: Constraints
    threads: int | None
    measure: Measure | None

    @property
    def size(self) -> int:
        """Samples of every input; 0 where the inputs have no common number of them."""
        sizes = {_samples(value) for value in self.inputs.values()}
        return sizes.pop() if len(sizes) == 1 else 0

    @property
    def cores(self) -> int:
        """Parts that can run side by side: in host memory, one per thread."""
        device = self.backends[0].describe().limited(self.threads)
        return device.threads if device.memory == HOST else 1

    @property
    def knows_its_cache(self) -> bool:
        return self.backends[0].describe().cache_nbytes is not None

    def counts(self) -> list[int]:
        """Numbers of parts worth weighing: of one sample last.

        Parts of a few samples read weights less often, and may fit the caches as well.
        """
        weighed = (self.cores, self.size // _FEW_SAMPLES)
        even = (n for n in weighed if 1 < n < self.size and not (self.size % n or n % self.cores))
        return [*sorted(set(even)), self.size]

    def whole(self) -> Planned:
        """The plan of the whole batch, on all threads."""
        given = (self.graph, self.inputs, self.backends, self.constraints)
        return make_plan(*given, self.measure, self.threads)

    def in_parts(self, count: int) -> Planned | str:
        """The plan of one part of the batch, or why there is none."""
        # Its rules name operators of most families, which only batches shall load.
        from mnnpy.runtime.preinference.samples import reason_against_parts

        if self.size < count or self.size % count:
            return f"{self.size} samples are not {count} equal parts"
        inputs = {name: _part(value, self.size // count) for name, value in self.inputs.items()}
        lanes = min(self.cores, count)
        given = (self.graph, inputs, self.backends, self.constraints)
        try:
            whole = infer_values(self.graph, self.inputs)
            reason = reason_against_parts(self.graph, whole, infer_values(self.graph, inputs))
            if reason is not None:
                return reason
            planned = make_plan(*given, self.measure, self.threads if lanes == 1 else 1, lanes)
        except MnnpyError as error:
            return str(error)
        if planned.plan.objects or not planned.plan.complete:
            return "a part holds values whose size only the data decides"
        types: dict[str, Type] = {name: value.tensor for name, value in self.inputs.items()}
        parts = Parts(count, lanes)
        return replace(planned, plan=replace(planned.plan, inputs=types, parts=parts))


def _samples(value: Value) -> int:
    tensor = value.type
    if not isinstance(tensor, TensorType) or not tensor.static or value.known is not None:
        return 0
    return int(tensor.shape[0]) if tensor.rank else 0


def _part(value: Value, samples: int) -> Value:
    return Value(TensorType(value.dtype, (samples, *value.shape[1:])))
