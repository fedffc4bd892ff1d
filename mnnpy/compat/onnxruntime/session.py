"""InferenceSession: ONNX Runtime's session over mnnpy's."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mnnpy.compat.onnxruntime.binding import IOBinding
from mnnpy.compat.onnxruntime.exceptions import InvalidArgument, translated
from mnnpy.compat.onnxruntime.feeds import checked_feeds
from mnnpy.compat.onnxruntime.model import ModelMetadata, NodeArg, open_model
from mnnpy.compat.onnxruntime.options import RunOptions, SessionOptions, check_run_options
from mnnpy.compat.onnxruntime.providers import Providers, choose_providers
from mnnpy.compat.onnxruntime.tracing import Trace
from mnnpy.compat.onnxruntime.values import OrtValue
from mnnpy.runtime.model_file import save_model
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.session import Session

_LOG = logging.getLogger("mnnpy")

Callback = Callable[[list[Any], Any, str], None]
"""What :meth:`InferenceSession.run_async` calls with results, the caller's data and an error."""


class InferenceSession:
    """Runs one model.

    Parameters
    ----------
    path_or_bytes : an ONNX or ``.mnnpy`` file, or the bytes of one.
    sess_options : what it honours is in :class:`SessionOptions`.
    providers : names, or pairs of name and options, in order of preference; all unless given.
    provider_options : options of each provider, where ``providers`` holds only names.
    enable_fallback : take the CPU where ``providers`` cannot be had, instead of raising.
    kwargs : accepted and ignored, as ONNX Runtime does.

    Raises
    ------
    NoSuchFile, InvalidProtobuf, InvalidArgument, InvalidGraph, NotImplemented, Fail
        Where the model cannot be loaded.
    """

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
        enable_fallback: bool = True,
        **kwargs: Any,
    ) -> None:
        if not isinstance(path_or_bytes, str | bytes | os.PathLike):
            raise TypeError(f"a model is a path or bytes, not {type(path_or_bytes).__name__}")
        if not isinstance(sess_options, SessionOptions | None):
            raise TypeError(f"sess_options takes SessionOptions, not {sess_options!r}")
        began = time.monotonic_ns()
        self._options = SessionOptions() if sess_options is None else sess_options.copy()
        source = path_or_bytes if isinstance(path_or_bytes, bytes) else os.fspath(path_or_bytes)
        self._enable_fallback = bool(enable_fallback)
        self._model = open_model(source, self._options)
        self._trace = Trace(began) if self._options.enable_profiling else None
        if self._trace is not None:
            self._trace.add("Session", "session_initialization", began, {})
        if self._options.optimized_model_filepath:
            with translated():
                save_model(self._model.graph, self._options.optimized_model_filepath)
        self.set_providers(providers, provider_options)

    def set_providers(
        self,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
    ) -> None:
        """Choose providers anew; plans of the earlier ones are dropped."""
        self._providers = self._chosen(providers, provider_options)
        self._sessions: dict[frozenset[str], Session] = {}
        self._session_fed(frozenset())

    def _chosen(self, providers: Any, provider_options: Any) -> Providers:
        try:
            return choose_providers(providers, provider_options)
        except (ValueError, RuntimeError) as error:
            if not self._enable_fallback:
                raise
            _LOG.warning("%s; falling back to CPUExecutionProvider", error)
            return choose_providers(["CPUExecutionProvider"], None)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """Run the model; results in the order of ``output_names``, all of them where it is empty.

        Raises
        ------
        ValueError
            Where inputs are missing.
        InvalidArgument
            Where a feed or an output's name is unknown, or a feed is of another type or shape.
        Fail
            Where running fails.
        """
        check_run_options(run_options)
        if isinstance(output_names, str):
            raise TypeError(f"output_names takes a list of names, not {output_names!r}")
        feeds = checked_feeds(input_feed, self._model.inputs, self._model.overridable)
        known = [arg.name for arg in self._model.outputs]
        wanted = list(output_names or known)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InvalidArgument(f"there is no output {unknown[0]!r}; there are {known}")
        fed = feeds.keys() & {arg.name for arg in self._model.overridable}
        results = self._execute(self._session_fed(frozenset(fed)), feeds, wanted)
        return [_as_given(results[name]) for name in wanted]

    def _execute(
        self, session: Session, feeds: Mapping[str, Any], wanted: Sequence[str]
    ) -> Mapping[str, Any]:
        names = list(dict.fromkeys(wanted))
        outputs = None if names == list(session.graph.outputs) else names
        with translated():
            if self._trace is None:
                return session.run(feeds, outputs)
            began = time.monotonic_ns()
            trace = self._trace
            results = session.run_with_callbacks(feeds, trace.before, trace.after, outputs)
            trace.add("Session", "model_run", began, {})
            return results

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """:meth:`run` on OrtValues; the results lie on the CPU."""
        others = [n for n, v in input_dict_ort_values.items() if not isinstance(v, OrtValue)]
        if others:
            raise AttributeError(f"feed {others[0]!r} is no OrtValue: use run, or make one of it")
        results = self.run(output_names, input_dict_ort_values, run_options)
        return [OrtValue(result) for result in results]

    def run_with_iobinding(
        self, iobinding: IOBinding, run_options: RunOptions | None = None
    ) -> None:
        """Run on what is bound. Raises ``ValueError`` on another session's binding."""
        if iobinding._session is not self:
            raise ValueError("the binding belongs to another session")
        iobinding.run(run_options)

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callback,
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """:meth:`run` in a thread of its own, which then calls ``callback``.

        It gets the results, ``user_data`` and an empty text, or no results and the error's text.
        """

        def work() -> None:
            try:
                results, error = self.run(output_names, input_feed, run_options), ""
            except Exception as raised:
                results, error = [], str(raised)
            callback(results, user_data, error)

        checked_feeds(input_feed, self._model.inputs, self._model.overridable)
        threading.Thread(target=work, name="mnnpy-run-async").start()

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def get_inputs(self) -> list[NodeArg]:
        """Inputs that every run needs."""
        return list(self._model.inputs)

    def get_outputs(self) -> list[NodeArg]:
        return list(self._model.outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs that have a default."""
        return list(self._model.overridable)

    def get_modelmeta(self) -> ModelMetadata:
        return self._model.meta

    def get_session_options(self) -> SessionOptions:
        """A copy of the options that the session was made with."""
        return self._options.copy()

    def get_providers(self) -> list[str]:
        return self._providers.names

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: dict(options) for name, options in self._providers.options.items()}

    def enable_fallback(self) -> None:
        """Take the CPU where :meth:`set_providers` cannot have what it is given."""
        self._enable_fallback = True

    def disable_fallback(self) -> None:
        """Let :meth:`set_providers` raise where it cannot have what it is given."""
        self._enable_fallback = False

    def end_profiling(self) -> str:
        """Write the trace of the runs so far and stop; the file's name, empty without a trace."""
        trace, self._trace = self._trace, None
        return "" if trace is None else trace.write(self._options.profile_file_prefix)

    def get_profiling_start_time_ns(self) -> int:
        """``time.monotonic_ns()`` at the trace's start; 0 where nothing is traced."""
        return 0 if self._trace is None else self._trace.start_ns

    def _session_fed(self, overridden: frozenset[str]) -> Session:
        """The session that takes these initialisers as inputs."""
        if overridden not in self._sessions:
            config, threads = self._options._config, self._options.intra_op_num_threads
            with translated():
                self._sessions[overridden] = Session(
                    self._model.graph_fed(overridden),
                    config.get("mnnpy.backend") or self._providers.backend,
                    threads=threads if threads > 0 else None,
                    strict=config.get("session.disable_cpu_ep_fallback") == "1",
                    constraints=Constraints(fuse=self._model.optimized),
                )
        return self._sessions[overridden]


def _as_given(result: Any) -> Any:
    """A result as ONNX Runtime gives it: arrays also of rank 0."""
    return result if result is None or isinstance(result, list) else np.asarray(result)
