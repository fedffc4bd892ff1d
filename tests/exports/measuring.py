"""Running one model beside ONNX Runtime, on one thread; imports are not timed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime

from mnnpy import Session, convert
from mnnpy.comparing import Tolerances, differences
from mnnpy.runtime.registry import with_fallbacks

Feeds = dict[str, np.ndarray]


@dataclass(slots=True)
class Measured:
    """What became of one model.

    Parameters
    ----------
    shapes : inputs' shapes that ran; ``refused`` those that ONNX Runtime does not run either.
    errors : backend -> largest max|difference| / max|expected| over outputs and shapes.
    moves : by how much the outputs change (relatively) with other inputs: near 0, the test is void.
    seconds : "ort create", "ort first", "convert", and backend -> a new session to first output.
    failures : backend -> why it did not run.
    """

    nodes: int = 0
    opset: int = 0
    shapes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    moves: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure(path: Path, folder: Path, backends: list[str], cache: str) -> dict[str, Any]:
    """Run a model in ONNX Runtime and on each backend, at every size that it can take.

    Parameters
    ----------
    folder : of the inputs, as :func:`tests.exports.exporting.export_all` writes them.
    cache : directory of compiled kernels.
    """
    os.environ["XDG_CACHE_HOME"] = cache
    return asdict(_measure(path, folder, backends))


def _measure(path: Path, folder: Path, backends: list[str]) -> Measured:
    result = Measured()
    model = onnx.load(path, load_external_data=False)
    result.nodes = len(model.graph.node)
    result.opset = next(entry.version for entry in model.opset_import if not entry.domain)
    runs, expected = _expected(path, folder, result)
    if not runs:
        return result
    started = perf_counter()
    try:
        graph = convert(path)
    except Exception as error:
        result.failures = dict.fromkeys(backends, _said(error))
        return result
    result.seconds["convert"] = perf_counter() - started
    for backend in backends:
        try:
            with_fallbacks(backend)
            started = perf_counter()
            session = Session(graph, backend=backend, threads=1)
            found = [session.run(runs[0])]
            result.seconds[backend] = perf_counter() - started
            found += [session.run(feeds) for feeds in runs[1:]]
        except Exception as error:
            result.failures[backend] = _said(error)
            continue
        result.errors[backend] = max(map(_error, expected, found))
    return result


def _expected(path: Path, folder: Path, result: Measured) -> tuple[list[Feeds], list[Feeds]]:
    """The inputs that ONNX Runtime takes, and its outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if "int8" in path.stem or "QDQ" in path.stem:  # Its integer kernels round in their own way.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    started = perf_counter()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        result.refused.append(_said(error))
        return [], []
    result.seconds["ort create"] = perf_counter() - started
    declared = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]
    runs, expected = [], []
    for file in sorted(folder.glob("[0-9].npz")):
        feeds = _fitted(file, declared)
        shape = ", ".join("x".join(map(str, feed.shape)) for feed in feeds.values())
        if shape in result.shapes:
            continue
        try:
            started = perf_counter()
            values = session.run(outputs, feeds)
            result.seconds.setdefault("ort first", perf_counter() - started)
        except Exception as error:
            result.refused.append(f"{shape}: {_said(error)}")
            continue
        result.shapes.append(shape)
        runs.append(feeds)
        expected.append(dict(zip(outputs, values, strict=True)))
    if runs:
        other = session.run(outputs, _fitted(folder / "other.npz", declared))
        result.moves = _error(expected[0], dict(zip(outputs, other, strict=True)))
    return runs, expected


def _error(expected: Feeds, found: Mapping[str, np.ndarray]) -> float:
    """The largest relative error; a large number rather than infinity, which JSON does not have."""
    compared = differences(expected, found, Tolerances())
    return max(min(entry.relative, 1e9) for entry in compared)


def _fitted(file: Path, declared: list[Any]) -> Feeds:
    """Inputs from a file, cut to the sizes and cast to the types that the model declares."""
    with np.load(file) as stored:
        feeds = {entry.name: stored[entry.name] for entry in declared}
    for entry in declared:
        feed = feeds[entry.name]
        if entry.type == "tensor(float16)":
            feed = feed.astype(np.float16)
        shape = [
            size if isinstance(size, int) else now
            for size, now in zip(entry.shape, feed.shape, strict=True)
        ]
        feeds[entry.name] = np.resize(feed, shape)
    return feeds


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]
