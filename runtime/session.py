"""Session: binds a plan per set of input shapes, then only executes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.errors import BackendError, ConfigError, FeedError, PlanError
from mnnpy.runtime.execution import After, Before, Executable, Progress
from mnnpy.runtime.feeds import (
    FamiliarFeeds,
    TensorInfo,
    checked_feeds,
    concrete_inputs,
    feeds_that_set_shapes,
)
from mnnpy.runtime.given_plan import given_plan
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import TensorType, Value
from mnnpy.runtime.model_file import load_model
from mnnpy.runtime.ops.user import OperatorLibrary
from mnnpy.runtime.packed_weights import PackedWeights
from mnnpy.runtime.parted import Bound, bind_plan
from mnnpy.runtime.preinference.batches import plan_batch
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.plan import Plan
from mnnpy.runtime.profiling import Profile, Recorder
from mnnpy.runtime.registry import check_schemes, with_fallbacks

_log = getLogger("mnnpy")
_MAX_PLANS = 16
PRECISIONS = ("high",)


class Session:
    """Runs one model.

    Parameters
    ----------
    model : a Graph, the path of a ``.mnnpy`` file, or its bytes.
    backend : "numpy", "numba", "cuda", "auto", or one of an installed package.
    threads : most threads to use; None leaves it to the backend.
    precision : "high", true float32, is the only one so far.
    strict : raise where a step would run on another backend, instead of falling back.
    constraints : schemes allowed, forbidden or pinned; limits on error and workspace.
    plan : a plan, or the path of a plan file, whose choices to use; only for its input shapes.
    operators : users' operators that the model has.

    Raises
    ------
    BackendError
        Where the backend does not exist or cannot be used here.
    ModelFormatError
        Where the file is no valid model.
    PlanError
        Where the plan was made for another model.
    ConfigError
        Where an option has a wrong value, or a constraint names a scheme that no backend has.
    """

    def __init__(
        self,
        model: Graph | str | Path | bytes,
        backend: str = "auto",
        threads: int | None = None,
        precision: str = "high",
        strict: bool = False,
        constraints: Constraints | None = None,
        plan: Plan | str | Path | None = None,
        operators: OperatorLibrary | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ConfigError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        if threads is not None and not (isinstance(threads, int) and threads >= 1):
            raise ConfigError(f"threads must be a whole number of at least 1, not {threads!r}")
        self._options = (backend, threads, precision, strict, constraints, plan, operators)
        self.graph = self._load(model, operators)
        self._source = self.graph if isinstance(model, bytes) else model
        self.threads = threads
        self.strict = strict
        self.constraints = constraints or Constraints()
        check_schemes(self.constraints.schemes)
        self._given = None if plan is None else given_plan(self.graph, plan)
        self.backends: tuple[Backend, ...] = with_fallbacks(backend)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._packed = PackedWeights()
        self._executables: OrderedDict[object, Bound] = OrderedDict()
        self._latest: tuple[Bound, FamiliarFeeds] | None = None
        self._variants: dict[tuple[str, ...], Graph] = {}
        self._shape_feeds = feeds_that_set_shapes(self.graph)

    def _load(self, model: Graph | str | Path | bytes, operators: OperatorLibrary | None) -> Graph:
        return model if isinstance(model, Graph) else load_model(model, operators)

    @property
    def backend(self) -> str:
        """Name of the backend that was asked for (or that "auto" found)."""
        return self.backends[0].name

    @property
    def inputs(self) -> list[TensorInfo]:
        """Name, dtype and shape of each input."""
        return [TensorInfo.of(name, t) for name, t in self.graph.inputs.items()]

    @property
    def outputs(self) -> list[TensorInfo]:
        """Name, dtype and shape of each output, as far as they follow from the inputs'."""
        values = infer_values(self.graph)
        return [TensorInfo.of(name, values[name].type) for name in self.graph.outputs]

    def run(self, feeds: Any = None, outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model.

        Parameters
        ----------
        feeds : the array of the only input, a list in the inputs' order, or a dict by name.
        outputs : names to return, the model's outputs unless given; any tensor of the graph.

        Returns
        -------
        Arrays by name; they belong to the caller.

        Raises
        ------
        FeedError
            Where feeds do not fit; names the input, what was expected and what came.
        """
        return self._run(feeds, outputs, lambda bound, fed: bound.run(fed))

    def run_with_callbacks(
        self,
        feeds: Any,
        before: Before | None = None,
        after: After | None = None,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Run step by step; ``before(step, arrays read)``, ``after(step, arrays written)``.

        Arrays are plain and by name, and later steps may overwrite them. What ``before`` returns
        replaces what the step reads. A batch runs as a whole, whatever the plan of other runs.
        """

        def execute(bound: Bound, fed: Mapping[str, Any]) -> Mapping[str, Any]:
            assert isinstance(bound, Executable)
            return bound.run_stepwise(fed, before, after)

        return self._run(feeds, outputs, execute, whole=True)

    def profile(self, feeds: Any, repeats: int = 10) -> Profile:
        """Time every step, and the whole run undisturbed, on these feeds.

        Where a batch runs part by part, the steps are those of its first part, and of the whole
        behind the value at which parts join; the run of the other parts between them is not shown.

        Parameters
        ----------
        repeats : timed runs, after one that is not counted.
        """
        if repeats < 1:
            raise ConfigError(f"repeats must be at least 1, not {repeats}")
        self.run(feeds)
        recorder = Recorder()
        for _ in range(repeats):
            with recorder.whole_run():
                self.run(feeds)
            with recorder.stepwise_run():
                self._run(feeds, None, recorder.execute)
        return recorder.profile()

    def _run(
        self,
        feeds: Any,
        outputs: Sequence[str] | None,
        execute: Callable[[Bound, Mapping[str, Any]], Mapping[str, Any]],
        whole: bool = False,
    ) -> dict[str, Any]:
        """Check feeds, then execute segment after segment; on request whole batches only."""
        self._refuse_forked()
        latest = self._latest
        if latest is not None:
            bound, familiar = latest
            bound.expect()  # Threads wake while feeds are checked.
            if outputs is None and not whole and (fed := familiar.named(feeds)) is not None:
                with self._exclusive():
                    return dict(execute(bound, fed))
        checked = checked_feeds(self.graph, {} if feeds is None else feeds)
        with self._exclusive():
            graph = self._graph_for(outputs)
            values: dict[str, Any] = dict(checked)
            current: Graph | None = graph
            while current is not None:
                bound = self._executable(current, values, whole=whole)
                values |= execute(bound, {name: values[name] for name in current.inputs})
                last, current = current, bound.rest
            usual = last is self.graph and not self._shape_feeds and not whole
            self._latest = bound, FamiliarFeeds.of(checked if usual else {})
        return {name: values[name] for name in graph.outputs}

    def plan(self, shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None) -> Plan:
        """The plan for these input shapes (the declared ones where they are all numbers).

        Parameters
        ----------
        shapes : by input name, or the shape of the only input.

        Raises
        ------
        FeedError
            Where a symbolic dimension gets no number.
        """
        inputs = concrete_inputs(self.graph, shapes)
        with self._exclusive():
            return self._bound(self.graph, inputs).plan

    def prepare(
        self,
        shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Plan and bind ahead of the first run; takes shapes as :meth:`plan` does.

        Parameters
        ----------
        progress : called with the fraction that is done, and what is done next.
        """
        inputs = concrete_inputs(self.graph, shapes)
        with self._exclusive():
            self._bound(self.graph, inputs, progress)

    def executable(self, feeds: Any, progress: Progress | None = None) -> Bound:
        """The bound plan for these feeds (its first segment); see :meth:`prepare`."""
        checked = checked_feeds(self.graph, feeds)
        with self._exclusive():
            return self._executable(self.graph, checked, progress)

    @property
    def packed_nbytes(self) -> int:
        """Bytes of the weights that bound plans have packed."""
        return self._packed.nbytes

    def close(self) -> None:
        """Free arenas and packed weights."""
        with self._lock:
            self._executables.clear()
            self._latest = None
            self._packed = PackedWeights()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source, *self._options)

    def _graph_for(self, outputs: Sequence[str] | None) -> Graph:
        if outputs is None:
            return self.graph
        wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
        if wanted in self._variants:
            return self._variants[wanted]
        graph = self.graph
        unknown = [
            name
            for name in wanted
            if not any(name in n for n in (graph.producers, graph.inputs, graph.constants))
        ]
        if unknown:
            raise FeedError(f"the graph has no value {unknown[0]!r} to return")
        while len(self._variants) >= _MAX_PLANS:
            del self._variants[next(iter(self._variants))]
        self._variants[wanted] = replace(graph, outputs=wanted)
        return self._variants[wanted]

    def _executable(
        self,
        graph: Graph,
        feeds: Mapping[str, Any],
        progress: Progress | None = None,
        whole: bool = False,
    ) -> Bound:
        inputs = {}
        for name, declared in graph.inputs.items():
            feed = feeds[name]
            if not isinstance(feed, np.ndarray):
                inputs[name] = Value(declared)
                continue
            sets_shapes = name in self._shape_feeds and feed.dtype.kind in "iub"
            known = feed.copy() if sets_shapes and feed.size <= 64 else None
            inputs[name] = Value(TensorType(feed.dtype, feed.shape), known)
        return self._bound(graph, inputs, progress, whole)

    def _bound(
        self,
        graph: Graph,
        inputs: Mapping[str, Value],
        progress: Progress | None = None,
        whole: bool = False,
    ) -> Bound:
        contents = (None if v.known is None else v.known.tobytes() for v in inputs.values())
        usual = (graph, tuple(v.type for v in inputs.values()), tuple(contents), False)
        found = self._executables.get(usual)
        key = usual
        if whole and (found is None or found.plan.parts.count > 1):
            key = (*usual[:-1], True)
            found = self._executables.get(key)
        if found is None:
            found = self._bind(graph, inputs, progress, whole)
            self._executables[key] = found
            while len(self._executables) > _MAX_PLANS:
                self._executables.popitem(last=False)
        self._executables.move_to_end(key)
        return found

    def _bind(
        self, graph: Graph, inputs: Mapping[str, Value], progress: Progress | None, whole: bool
    ) -> Bound:
        backends = self.backends[:1] if self.strict else self.backends
        constraints = replace(self.constraints, parts=1) if whole else self.constraints
        given = self._given
        if given is not None and whole and given.plan.parts.count > 1:
            given = None  # What it says of a part need not fit the whole.
        if given is not None:
            constraints = given.constraints(inputs, constraints)
        if graph is not self.graph:
            constraints = replace(constraints, join=None)  # Other outputs may lie before it.
        try:
            planned = plan_batch(graph, inputs, backends, constraints, self.threads)
        except PlanError as error:
            if self.strict:
                raise BackendError(f"strict mode: {error}") from error
            raise
        if given is not None:
            planned = replace(planned, plan=given.explained(planned.plan))
        self._judge_fallbacks(planned.plan)
        return bind_plan(planned, self.backends, self._packed, self.threads, progress)

    def _judge_fallbacks(self, plan: Plan) -> None:
        """One line in the log on what other backends run; in strict mode an error."""
        others = [
            step
            for stage in plan.stages
            for step in stage.steps
            if step.choice.backend != self.backend and step.choice.scheme not in ("copy", "view")
        ]
        if not others:
            return
        if self.strict:
            raise BackendError(
                f"strict mode: {others[0].node} runs on {others[0].choice.backend} and not on "
                f"{self.backend}, since it works on strings, sequences or sizes that only the "
                "data decides; use backend 'numpy', or leave out strict"
            )
        _log.info(
            "%d of %d steps run on %s instead of %s: %s",
            len(others),
            sum(len(stage.steps) for stage in plan.stages),
            ", ".join(sorted({step.choice.backend for step in others})),
            self.backend,
            ", ".join(sorted({step.node.op.kind for step in others})),
        )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One thread at a time."""
        self._refuse_forked()
        with self._lock:
            yield

    def _refuse_forked(self) -> None:
        """Raise in a forked child: a lock that another thread held then stays locked for good."""
        if os.getpid() != self._pid:
            raise BackendError(
                "this session was made before os.fork(): threads and devices do not survive it; "
                "make the session in the child, or start the child with 'spawn'"
            )
