"""Plans in words: a table of steps and memory, and for one step what it was chosen from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mnnpy.runtime.contracts import Config, Cost, Rejected
from mnnpy.runtime.errors import PlanError
from mnnpy.runtime.graph.types import TensorType, Type
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.preinference.plan import Plan, Step
from mnnpy.runtime.text_table import text_table

_HEADINGS = (
    *("step", "node", "operator", "output", "backend", "scheme", "config", "layout"),
    *("time", "bytes", "workspace"),
)
_NUMBERS = ("step", "time", "bytes", "workspace")


def explain_plan(plan: Plan) -> str:
    """Every step on a line, then totals, memory and what the plan leaves open; stage by stage."""
    lines, first = [], 0
    for stage in plan.stages:
        rows = [_step_row(stage, first + index, step) for index, step in enumerate(stage.steps)]
        lines += [text_table(_HEADINGS, rows, _NUMBERS), "", *_summary(stage)]
        lines += [*_join_report(stage), ""] if stage.then else []
        first += len(stage.steps)
    return "\n".join(lines)


def explain_step(plan: Plan, step: int | str) -> str:
    """One step and every candidate that was not chosen, with its cost or the reason against it.

    Raises
    ------
    PlanError
        Where the plan has no such step.
    """
    steps = _all_steps(plan)
    index = find_step(plan, step)
    found = steps[index]
    choice = found.choice
    chosen = [choice.backend, choice.scheme, config_text(choice.config), *_costs(choice.cost)]
    candidates = [[*chosen, "chosen"], *map(_rejected_row, _by_cost(choice.rejected))]
    headings = ("backend", "scheme", "config", "time", "workspace", "error", "verdict")
    lines = [
        f"step {index}: {found.node.op.kind} node {found.node.name!r}",
        f"  reads   {', '.join(found.node.reads) or 'nothing'}",
        f"  writes  {_writes(found)}",
        f"  layouts {_arrow(found)}",
    ]
    if isinstance(found.node.op, Fused):
        lines.append(f"  region  {', '.join(node_names(found))}")
    return "\n".join([*lines, "", text_table(headings, candidates, ("time", "workspace", "error"))])


def find_step(plan: Plan, step: int | str) -> int:
    """Position of a step through all stages, given by that or by the name of a node in it.

    Raises
    ------
    PlanError
        Where the plan has no such step.
    """
    steps = _all_steps(plan)
    if isinstance(step, int):
        if 0 <= step < len(steps):
            return step
        raise PlanError(f"the plan has steps 0 to {len(steps) - 1}, not {step}")
    for index, candidate in enumerate(steps):
        if step == candidate.node.name or step in node_names(candidate):
            return index
    close = [s.node.name for s in steps if step.lower() in s.node.name.lower()]
    hint = f"; close are {', '.join(close[:5])}" if close else ""
    raise PlanError(
        f"no step runs a node named {step!r}{hint} "
        "(nodes whose results are known while planning need no step)"
    )


def _all_steps(plan: Plan) -> list[Step]:
    return [step for stage in plan.stages for step in stage.steps]


def node_names(step: Step) -> tuple[str, ...]:
    """Names of the graph's nodes that a step runs; none for a copy that planning added."""
    if isinstance(step.node.op, Fused):
        return tuple(node.name for node in step.node.op.graph.nodes)
    return () if step.choice.scheme == "copy" else (step.node.name,)


def config_text(config: Config) -> str:
    """``tile=4 split=2``, or a dash where there is nothing to configure."""
    return " ".join(f"{key}={value}" for key, value in config) or "-"


def seconds_text(seconds: float) -> str:
    """A time with three digits and a unit that suits it."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1 or unit == "us":
            break
    return (
        f"{seconds * scale:.3g} {unit}"
        if seconds * scale < 100
        else f"{seconds * scale:.0f} {unit}"
    )


def nbytes_text(nbytes: int) -> str:
    """A size with three digits and a binary unit."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"


def shape_text(value_type: Type) -> str:
    """``1x16x8x8``, ``scalar``, or the type's name where it is no tensor."""
    if not isinstance(value_type, TensorType):
        return str(value_type)
    return "x".join(map(str, value_type.shape)) or "scalar"


def _step_row(plan: Plan, index: int, step: Step) -> list[str]:
    choice = step.choice
    return [
        str(index),
        step.node.name,
        step.node.op.kind,
        " ".join(map(shape_text, step.types)) or "-",
        choice.backend,
        choice.scheme,
        config_text(choice.config),
        " ".join(dict.fromkeys(map(str, choice.output_layouts))),
        _time(choice.cost),
        nbytes_text(_written_nbytes(plan, step)),
        nbytes_text(choice.cost.workspace_nbytes) if choice.cost.workspace_nbytes else "-",
    ]


def _summary(plan: Plan) -> list[str]:
    costs = [step.choice.cost for step in plan.steps]
    measured = sum(cost.measured for cost in costs)
    how = f"{measured} of {len(costs)} steps measured (*)" if measured else "all predicted"
    counts = [
        f"{sum(step.choice.backend == name for step in plan.steps)} on {name}"
        for name in plan.backends
    ]
    lines = [
        f"{len(plan.steps)} steps ({', '.join(counts) or 'none needed'}), "
        f"{seconds_text(plan.seconds - (plan.then.seconds if plan.then else 0.0))}, {how}",
        *_parts_report(plan),
        *_memory_report(plan),
    ]
    if not plan.complete:
        lines.append("the rest is planned during the run: sizes there depend on data")
    return lines


def _parts_report(plan: Plan) -> Iterable[str]:
    """How a batch runs, and what other ways would cost."""
    parts = plan.parts
    if parts.count > 1:
        beside = f", {parts.lanes} side by side with an arena each" if parts.lanes > 1 else ""
        yield f"the batch runs in {parts.count} parts{beside}; steps and memory are one part's"
    for count, seconds in parts.weighed:
        if count != parts.count or plan.then is not None:
            way = "as a whole" if count == 1 else f"in {count} parts"
            yield f"the batch {way} would take {seconds_text(seconds)}"
    if parts.reason is not None:
        yield f"the batch cannot run in parts: {parts.reason}"


def _join_report(plan: Plan) -> Iterable[str]:
    """What follows the parts."""
    yield f"the parts join at {plan.join}: from there on the whole batch runs"
    yield f"all stages together take {seconds_text(plan.seconds)}"


def _memory_report(plan: Plan) -> Iterable[str]:
    workspaces = plan.memory.workspaces
    for name, peak in plan.memory.arenas.items():
        bound = plan.memory.lower_bound[name]
        scratch = max(
            (slot.nbytes for slot in workspaces if slot and slot.memory == name), default=0
        )
        ratio = f"{peak / bound:.2f}x the lower bound of {nbytes_text(bound)}" if bound else "empty"
        largest = nbytes_text(scratch) if scratch else "none"
        yield f"memory {name}: peak {nbytes_text(peak)}, {ratio}; largest workspace {largest}"
    if plan.memory.borrowed:
        names = ", ".join(sorted(plan.memory.borrowed))
        yield f"read and written where the caller holds them: {names}"


def _written_nbytes(plan: Plan, step: Step) -> int:
    slots, borrowed = plan.memory.slots, plan.memory.borrowed
    typed = dict(zip(step.node.outputs, step.types, strict=True))
    here = sum(slots[name].nbytes for name in typed if name in slots)
    there = (t for name, t in typed.items() if name in borrowed and isinstance(t, TensorType))
    return here + sum(t.nbytes for t in there)


def _writes(step: Step) -> str:
    typed = zip(step.node.outputs, step.types, strict=True)
    return ", ".join(f"{name}: {value_type}" for name, value_type in typed)


def _arrow(step: Step) -> str:
    reads = ", ".join(map(str, step.choice.input_layouts)) or "-"
    return f"{reads} -> {', '.join(map(str, step.choice.output_layouts))}"


def _by_cost(rejected: Sequence[Rejected]) -> list[Rejected]:
    """Candidates that could run first, cheapest first; then the others as they were met."""
    return sorted(
        rejected,
        key=lambda r: (r.reason is not None, r.cost.seconds if r.cost else float("inf")),
    )


def _rejected_row(entry: Rejected) -> list[str]:
    costs = ["-", "-", "-"] if entry.cost is None else _costs(entry.cost)
    verdict = entry.reason or "costs more, itself or through the layouts around it"
    return [entry.backend, entry.scheme, config_text(entry.config), *costs, verdict]


def _costs(cost: Cost) -> list[str]:
    workspace = nbytes_text(cost.workspace_nbytes) if cost.workspace_nbytes else "-"
    error = f"{cost.max_error:.1e}" if cost.max_error else "-"
    return [_time(cost), workspace, error]


def _time(cost: Cost) -> str:
    return seconds_text(cost.seconds) + ("*" if cost.measured else "")
