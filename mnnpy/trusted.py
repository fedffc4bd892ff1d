"""Sides that results are compared with: ONNX Runtime, a backend of ours, or given outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mnnpy.runtime.errors import BackendError
from mnnpy.session import Session

ONNXRUNTIME = "onnxruntime"


class Trusted(Protocol):
    """A side whose results are taken for right."""

    @property
    def name(self) -> str: ...

    def outputs(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The model's outputs by name."""
        ...

    def tensors(self, feeds: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Those of these values, inside the model too, that this side has under these names."""
        ...


@dataclass(frozen=True, slots=True)
class OwnBackend:
    """A session of ours. Every value that is asked for is computed unfused."""

    session: Session

    @property
    def name(self) -> str:
        return self.session.backend

    def outputs(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return self.session.run(feeds)

    def tensors(self, feeds: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        producers = self.session.graph.producers
        return self.session.run(feeds, [name for name in names if name in producers])


@dataclass(frozen=True, slots=True)
class GivenOutputs:
    """Outputs that come with the inputs, as in ONNX's test data."""

    name: str
    expected: Mapping[str, Any]

    def outputs(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.expected)

    def tensors(self, feeds: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return {name: self.expected[name] for name in names if name in self.expected}


class OnnxRuntime:
    """ONNX Runtime on one thread of the CPU, its optimisations off where it shows what is inside.

    Parameters
    ----------
    model : an ``.onnx`` file, or its content.

    Raises
    ------
    BackendError
        Where ONNX Runtime is not installed, or refuses the model.
    """

    name = ONNXRUNTIME

    def __init__(self, model: str | Path | bytes) -> None:
        reason = why_no_onnxruntime()
        if reason is not None:
            raise BackendError(reason)
        self._model = model
        self._whole = self._session(model if isinstance(model, bytes) else str(model))

    def outputs(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return self._run(self._whole, feeds)

    def tensors(self, feeds: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Tensors by making them outputs; those of functions and subgraphs stay inside."""
        import onnx

        model = (
            onnx.load_model_from_string(self._model)
            if isinstance(self._model, bytes)
            else onnx.load(str(self._model), load_external_data=False)
        )
        written = {name for node in model.graph.node for name in node.output if name}
        shown = [name for name in dict.fromkeys(names) if name in written]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown)
        return (
            self._run(self._session(model.SerializeToString(), exact=True), feeds) if shown else {}
        )

    def _session(self, model: str | bytes, exact: bool = False) -> Any:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if exact:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not isinstance(self._model, bytes):
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path",
                os.path.dirname(os.path.abspath(self._model)),
            )
        try:
            return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        except Exception as error:  # Its exceptions share no base class.
            raise BackendError(f"onnxruntime cannot load the model: {error}") from error

    def _run(self, session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
        declared = {entry.name for entry in session.get_inputs()}
        fed = {name: feed for name, feed in feeds.items() if name in declared}
        names = [entry.name for entry in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, fed), strict=True))
        except Exception as error:  # Its exceptions share no base class.
            raise BackendError(f"onnxruntime cannot run the model: {error}") from error


def why_no_onnxruntime() -> str | None:
    """Why ONNX Runtime cannot be used here; None where it can."""
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'mnnpy[compare]', or compare with numpy"
    return None


def trusted_side(
    model: str | Path | bytes, name: str | None, threads: int | None = None
) -> Trusted:
    """The side of a name; ONNX Runtime, where it can be used, or else NumPy, for None.

    Raises
    ------
    BackendError
        Where that side cannot be used here, or cannot run such a model.
    """
    is_onnx = isinstance(model, bytes) or Path(model).suffix.lower() != ".mnnpy"
    if name is None:
        name = ONNXRUNTIME if is_onnx and why_no_onnxruntime() is None else "numpy"
    if name != ONNXRUNTIME:
        return OwnBackend(Session(model, name, threads))
    if not is_onnx:
        raise BackendError(f"{model!s}: onnxruntime runs ONNX models: give the .onnx file")
    return OnnxRuntime(model)
