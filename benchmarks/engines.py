"""The engines that are compared, behind one small interface.

A run takes NumPy arrays and returns arrays that belong to the caller, so every engine pays for its
own copies and layout conversions at both ends. All compute in true float32.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mnnpy import Session

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Runner: TypeAlias = Callable[[Arrays], Arrays]
"""Runs a loaded model: feeds by input name -> results by output name."""

OURS = "mnnpy"
REFERENCE = "onnxruntime"
"""The engine whose outputs the others are compared with."""


class Engine(Protocol):
    """One way to run an ONNX model."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str:
        """What it is told besides the model and the number of threads."""
        ...

    def available(self) -> str | None:
        """Why the engine cannot be used here; None where it can."""
        ...

    def prepare(self, model: bytes) -> bytes:
        """What ``load`` takes: the ONNX model, or what the engine's own converter makes of it."""
        ...

    def load(self, model: bytes, threads: int) -> Runner:
        """A session that is ready to run."""
        ...


@dataclass(frozen=True, slots=True)
class MnnpyRunner:
    """A session of ours, kept for what it can tell about its plan."""

    session: Session

    def __call__(self, feeds: Arrays) -> Arrays:
        return self.session.run(feeds)

    @property
    def predicted_seconds(self) -> float:
        """What the plan expects of one run."""
        return self.session.plan().seconds


@dataclass(frozen=True, slots=True)
class Mnnpy:
    """mnnpy through its public face, on one of its backends."""

    backend: str

    @property
    def name(self) -> str:
        return f"{OURS}-{self.backend}"

    @property
    def settings(self) -> str:
        return f'Session(..., backend="{self.backend}")'

    def available(self) -> str | None:
        from mnnpy.runtime.registry import load_backend

        return load_backend(self.backend).check()

    def prepare(self, model: bytes) -> bytes:
        return model

    def load(self, model: bytes, threads: int) -> MnnpyRunner:
        from mnnpy import Session

        session = Session(model, backend=self.backend, threads=threads)
        session.prepare()
        return MnnpyRunner(session)


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """ONNX Runtime's CPU provider with all graph optimisations."""

    name = REFERENCE
    settings = (
        "ORT_ENABLE_ALL, sequential, workers spin during a run and stop at its end "
        "(session.force_spinning_stop), so that they do not disturb the engine that runs next"
    )

    def available(self) -> str | None:
        return _missing("onnxruntime")

    def prepare(self, model: bytes) -> bytes:
        return model

    def load(self, model: bytes, threads: int) -> Runner:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        names = [output.name for output in session.get_outputs()]
        return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


@dataclass(frozen=True, slots=True)
class OpenVino:
    """OpenVINO's CPU plugin."""

    name = "openvino"
    settings = (
        "INFERENCE_PRECISION_HINT f32 (its default is bf16 where the CPU has it), "
        "PERFORMANCE_HINT LATENCY, one stream, inputs shared, outputs copied, "
        "ENABLE_CPU_PINNING off: it would bind the calling thread to a core for all engines, which "
        "share one process"
    )

    def available(self) -> str | None:
        return _missing("openvino")

    def prepare(self, model: bytes) -> bytes:
        return model

    def load(self, model: bytes, threads: int) -> Runner:
        import openvino

        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", config)
        request = compiled.create_infer_request()
        names = [output.get_any_name() for output in compiled.outputs]

        def run(feeds: Arrays) -> Arrays:
            results = request.infer(dict(feeds), share_inputs=True)
            return {name: results[index] for index, name in enumerate(names)}

        return run


@dataclass(frozen=True, slots=True)
class Mnn:
    """Alibaba's MNN through its session API."""

    name = "mnn"
    settings = (
        "backend CPU, precision high; converted offline by MNN's own converter; a run is copyFrom "
        "a host tensor, runSession, copyToHostTensor"
    )

    def available(self) -> str | None:
        return _missing("MNN")

    def prepare(self, model: bytes) -> bytes:
        # The mnnconvert script reports its use over the network and installs packages for that;
        # the extension module behind it only converts. It ends the process where it fails.
        convert = "import sys, _tools; _tools.mnnconvert(sys.argv)"
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "model.onnx"), Path(folder, "model.mnn")
            source.write_bytes(model)
            files = ["--modelFile", str(source), "--MNNModel", str(target)]
            command = [sys.executable, "-c", convert, "-f", "ONNX", *files, "--bizCode", "MNN"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not target.exists():
                said = " / ".join((done.stdout + done.stderr).split("\n")[-4:])
                raise RuntimeError(f"MNN's converter wrote no model: {said}")
            return target.read_bytes()

    def load(self, model: bytes, threads: int) -> Runner:
        import MNN

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.mnn")
            path.write_bytes(model)
            interpreter = MNN.Interpreter(str(path))
        config = {"backend": "CPU", "numThread": threads, "precision": "high"}
        session = interpreter.createSession(config)
        inputs = interpreter.getSessionInputAll(session)
        outputs = interpreter.getSessionOutputAll(session)
        kind, order = MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe

        def host_tensor(array: NDArray[Any]) -> Any:
            return MNN.Tensor(array.shape, kind, array, order)

        targets = {
            name: host_tensor(np.zeros(tensor.getShape(), np.float32))
            for name, tensor in outputs.items()
        }

        def run(feeds: Arrays) -> Arrays:
            for name, tensor in inputs.items():
                tensor.copyFrom(host_tensor(feeds[name]))
            interpreter.runSession(session)
            for name, target in targets.items():
                outputs[name].copyToHostTensor(target)
            # The tensor's array shows memory that the next run overwrites.
            return {name: target.getNumpyData().copy() for name, target in targets.items()}

        return run


@dataclass(frozen=True, slots=True)
class PyTorch:
    """PyTorch's operators, on the modules that onnx2torch makes of the model."""

    name = "pytorch"
    settings = "eager, inference_mode, set_num_threads; the ONNX model as modules by onnx2torch"

    def available(self) -> str | None:
        found = all(find_spec(package) is not None for package in ("torch", "onnx2torch"))
        return None if found else "not installed; pip install torch onnx2torch"

    def prepare(self, model: bytes) -> bytes:
        return model

    def load(self, model: bytes, threads: int) -> Runner:
        import onnx
        import onnx2torch
        import torch

        graph = onnx.load_from_string(model).graph
        module = onnx2torch.convert(onnx.load_from_string(model)).eval()
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [entry.name for entry in graph.input if entry.name not in constants]
        names = [entry.name for entry in graph.output]

        def run(feeds: Arrays) -> Arrays:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                results = module(*(torch.from_numpy(feeds[name]) for name in inputs))
            listed = results if isinstance(results, list | tuple) else [results]
            return {name: t.numpy().copy() for name, t in zip(names, listed, strict=True)}

        return run


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (Mnnpy("numpy"), Mnnpy("numba"), OnnxRuntime(), OpenVino(), Mnn(), PyTorch())
}


def is_ours(engine: str) -> bool:
    """Whether an engine, by its name, is mnnpy."""
    return engine.startswith(OURS)


def max_error(outputs: Arrays, reference: Arrays) -> float:
    """Largest max|d| / max|reference| of all outputs; infinite where one is missing."""
    worst = 0.0
    for name, expected in reference.items():
        if name not in outputs or outputs[name].size != expected.size:
            return float("inf")
        found = np.asarray(outputs[name], np.float64).reshape(expected.shape)
        scale = max(float(np.abs(expected).max(initial=0)), float(np.finfo(np.float32).tiny))
        difference = float(np.abs(found - expected).max(initial=0)) / scale
        worst = max(worst, difference) if np.isfinite(difference) else float("inf")
    return worst


def _missing(package: str) -> str | None:
    if find_spec(package) is not None:
        return None
    return f'the package {package} is not installed; pip install "mnnpy[bench]"'
