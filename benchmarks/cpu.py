"""Side by side with other engines on the CPU: one process, same inputs, taking turns.

``python -m benchmarks --models resnet18 --rounds 5`` for a first look; ``README.md`` here says how
to read what comes out.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.engines import (
    ENGINES,
    LEFT_OUT,
    REFERENCE,
    Arrays,
    Mnnpy,
    MnnpyRunner,
    Runner,
    max_error,
)
from benchmarks.layers import layer_table
from benchmarks.models import MODELS, input_shape
from benchmarks.report import Report, Result
from benchmarks.startup import Startup, measure_startup
from benchmarks.timing import measure_peak, race

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = ("mnnpy", "numpy", "numba", "onnxruntime", "openvino", "MNN")


class Comparison:
    """Runs engines on models and collects results, and notes on what did not work."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: list[Result] = []
        self.notes: list[str] = list(LEFT_OUT)
        self.engines = list(self._usable(options.engines))

    def _usable(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            reason = ENGINES[name].available()
            if reason is None:
                yield name
            else:
                self._note(f"{name}: {reason}")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
        print(f"  left out: {text}", flush=True)

    def compare(self, model: str) -> None:
        """All engines on one model, for every number of threads; start-up with the first."""
        content, feeds = self.model(model)
        prepared = self._prepared(model, content)
        for position, threads in enumerate(self.options.threads):
            startups = {}
            if position == 0 and self.options.startup:
                startups = self._startups(model, prepared, feeds, threads)
            self._compare(model, threads, self._loaded(model, prepared, threads), feeds, startups)

    def model(self, name: str) -> tuple[bytes, Arrays]:
        """ONNX bytes of a model and its input, the same at every call."""
        batch, sequence = self.options.batch, self.options.sequence
        print(f"{name}: building", flush=True)
        model = MODELS[name](batch=batch, sequence=sequence)
        shape = input_shape(name, batch, sequence)
        feed = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return model.SerializeToString(), {model.graph.input[0].name: feed}

    def _prepared(self, model: str, content: bytes) -> dict[str, bytes]:
        prepared = {}
        for name in self.engines:
            try:
                prepared[name] = ENGINES[name].prepare(content)
            except Exception as error:  # One engine's failure is a result, not the end.
                self._note(f"{model} on {name}: {error}")
        return prepared

    def _startups(
        self, model: str, prepared: Mapping[str, bytes], feeds: Arrays, threads: int
    ) -> dict[str, Startup]:
        startups = {}
        for name, content in prepared.items():
            try:
                startups[name] = measure_startup(name, content, feeds, threads)
            except RuntimeError as error:
                self._note(f"start-up with {model}: {error}")
        return startups

    def _loaded(self, model: str, prepared: Mapping[str, bytes], threads: int) -> dict[str, Runner]:
        runners = {}
        for name, content in prepared.items():
            try:
                runners[name] = ENGINES[name].load(content, threads)
            except Exception as error:
                self._note(f"{model} on {name}: {error}")
        return runners

    def _compare(
        self,
        model: str,
        threads: int,
        runners: Mapping[str, Runner],
        feeds: Arrays,
        startups: Mapping[str, Startup],
    ) -> None:
        outputs = {name: runner(feeds) for name, runner in runners.items()}
        reference = outputs.get(REFERENCE)
        runs = {name: partial(runner, feeds) for name, runner in runners.items()}
        times = race(runs, threads, self.options.rounds, self.options.seconds)
        for name, runner in runners.items():
            found = Result(
                model=model,
                threads=threads,
                batch=self.options.batch,
                engine=name,
                best_ms=min(times[name]) * 1e3,
                median_ms=median(times[name]) * 1e3,
                rounds=len(times[name]),
                max_error=None if reference is None else max_error(outputs[name], reference),
                predicted_ms=_predicted_ms(runner),
                startup=startups.get(name),
            )
            self.results.append(found)
            print(
                f"  {name:<14} {threads} thread(s)  best {found.best_ms:8.2f} ms  "
                f"median {found.median_ms:8.2f} ms",
                flush=True,
            )

    def layers(self, model: str) -> None:
        """Print the steps of our own engines."""
        content, feeds = self.model(model)
        for threads in self.options.threads:
            peak = measure_peak(threads)
            for name in self.engines:
                engine = ENGINES[name]
                if isinstance(engine, Mnnpy):
                    repeats = self.options.rounds
                    print(f"\n{model} on {name}, {threads} thread(s)\n")
                    print(layer_table(content, feeds, engine.backend, threads, peak, repeats))


def _predicted_ms(runner: Runner) -> float | None:
    return runner.predicted_seconds * 1e3 if isinstance(runner, MnnpyRunner) else None


def machine_facts(engines: Sequence[str]) -> list[str]:
    """What the figures depend on."""
    load = os.getloadavg()[0]
    peaks = ", ".join(f"{measure_peak(n):.0f} on {n} thread(s)" for n in (1, _cores()))
    return [
        f"{date.today()}: {_cpu_name()}, {_cores()} cores; {platform.system()}, "
        f"Python {platform.python_version()}",
        f"load of the machine by others at the start: {load:.1f}"
        + (" (not idle: trust ratios, not times)" if load > 0.3 else ""),
        f"NumPy's matrix products reach {peaks} (GFLOP/s, float32)",
        "versions: " + ", ".join(f"{name} {v}" for name in _PACKAGES if (v := _version(name))),
        *(f"{name}: {ENGINES[name].settings}" for name in engines),
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="NAME")
    add("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    add("--batch", type=int, default=1)
    add("--sequence", type=int, default=128, help="tokens of bert_encoder")
    add("--rounds", type=int, default=20, help="most counted runs of each engine")
    add("--seconds", type=float, default=20.0, help="budget per model and number of threads")
    add("--output-dir", type=Path, default=RESULTS, help="where cpu.md and cpu.json go")
    add("--no-startup", dest="startup", action="store_false", help="skip start-up and memory")
    add("--per-layer", action="store_true", help="print the steps of our own engines instead")
    options = parser.parse_args(arguments)
    for name in ("batch", "sequence", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(options.threads) < 1:
        parser.error("--threads must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or show layers; results are written after every model."""
    options = parse(arguments)
    if options.per_layer:
        comparison = Comparison(options)
        for model in options.models:
            comparison.layers(model)
        return 0
    comparison = Comparison(options)
    facts = machine_facts(comparison.engines)
    for model in options.models:
        comparison.compare(model)
        Report(comparison.results, facts, comparison.notes).write(options.output_dir)
    print((options.output_dir / "cpu.md").read_text())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
