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
from mnnpy.runtime.preinference.joins import estimate_join, find_joins
from mnnpy.runtime.preinference.plan import Parts
from mnnpy.runtime.preinference.planner import HOST, Planned, make_plan, rest_of
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
    a part. Parts may join at a value behind which the whole batch goes on. All that is weighed
    where the graph treats samples alone and the first backend's device knows its cache.

    Parameters
    ----------
    inputs, backends, constraints, measure : as for :func:`make_plan`.
    threads : most threads of the run; None leaves it to the device.

    Returns
    -------
    The plan of the whole, or of one part; ``plan.parts`` says which, ``plan.then`` how it goes on.

    Raises
    ------
    PlanError
        As :func:`make_plan` does, and where the constraints want parts that cannot be had.
    """
    task = _Batch(graph, inputs, backends, constraints or Constraints(), threads, measure)
    wanted, join = task.constraints.parts, task.constraints.join
    if join is not None and wanted is None:
        raise PlanError(f"parts join at {join!r}, but the constraints do not say how many parts")
    if wanted is not None and wanted > 1:
        found = task.in_parts(wanted) if join is None else task.joined(join, wanted)
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
    best = task.best_joined(ways) or best
    parts = replace(best.plan.parts, weighed=weighed, reason=reason)
    return replace(best, plan=replace(best.plan, parts=parts))


_FEW_SAMPLES = 4
_WORTH_JOINING = 0.99
"""Part of the time of the best other way below which a join is planned."""


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

    def best_joined(self, ways: Sequence[Planned]) -> Planned | None:
        """The best plan of parts that join, where it beats the whole and the other ways."""
        whole, *parted = ways
        joins = list(find_joins(self.graph, infer_values(self.graph, self.inputs)))
        best = min(way.plan.seconds for way in ways)
        if not joins or not parted:
            return None
        estimates = (estimate_join(joins, self.graph, whole.plan, way.plan) for way in parted)
        found = min(estimates, key=lambda estimate: estimate.seconds)
        if found.seconds >= _WORTH_JOINING * best:
            return None
        share = found.before / found.seconds
        made = self.joined(found.join.value, found.count, share)
        return made if isinstance(made, Planned) and made.plan.seconds < best else None

    def joined(self, value: str, count: int, share: float = 0.5) -> Planned | str:
        """The plan of one part up to a value, and of the whole behind it; or why there is none.

        ``share`` is the part of the error budget that the parts get.
        """
        budget = self.constraints.error_budget
        before = replace(self.constraints, error_budget=share * budget)
        behind = replace(self.constraints, error_budget=(1 - share) * budget)
        values = infer_values(self.graph, self.inputs)
        found = [join for join in find_joins(self.graph, values) if join.value == value]
        if not found:
            return f"parts cannot join at {value!r}: what follows reads more than that"
        nodes = self.graph.nodes[: found[0].place + 1]
        graph = replace(self.graph, nodes=nodes, outputs=(value,))
        made = replace(self, graph=graph, constraints=before).in_parts(count)
        if isinstance(made, str):
            return made
        rest = rest_of(self.graph, nodes, values)
        given = (rest, {value: Value(values[value].tensor)}, self.backends, behind)
        try:
            then = make_plan(*given, self.measure, self.threads)
        except MnnpyError as error:
            return str(error)
        if then.plan.objects or not then.plan.complete:
            return f"behind {value!r} are values whose size only the data decides"
        plan = replace(made.plan, fingerprint=self.graph.fingerprint, then=then.plan)
        return replace(made, plan=plan, then=then)


def _samples(value: Value) -> int:
    tensor = value.type
    if not isinstance(tensor, TensorType) or not tensor.static or value.known is not None:
        return 0
    return int(tensor.shape[0]) if tensor.rank else 0


def _part(value: Value, samples: int) -> Value:
    return Value(TensorType(value.dtype, (samples, *value.shape[1:])))
