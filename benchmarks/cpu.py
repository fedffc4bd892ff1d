"""Side by side with other engines on the CPU: one process, same inputs, taking turns.

Without arguments this is the whole benchmark, written to ``results/``. A part of it (``--quick``,
``--models resnet18 --threads 1``) is printed, and written only where ``--output-dir`` says.
``README.md`` here says how to read what comes out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.engines import (
    ENGINES,
    REFERENCE,
    Arrays,
    Mnnpy,
    MnnpyRunner,
    Runner,
    is_ours,
    max_error,
)
from benchmarks.layers import layer_page, measure_layers, write_layers
from benchmarks.machine import machine_facts
from benchmarks.models import CONVOLUTIONAL, MODELS, input_shape
from benchmarks.report import Report
from benchmarks.resident import Itemised, itemised
from benchmarks.results import Case, Result
from benchmarks.startup import Startup, measure_startup
from benchmarks.timing import race

RESULTS = Path(__file__).resolve().parent / "results"
_OURS = Mnnpy("numba")
_ENGINES = [name for name in ENGINES if name != Mnnpy("numpy").name]
_BATCHES: dict[str, tuple[int, ...]] = {"mobilenet_v2": (1, 8, 32), "resnet50": (1, 8, 32)}
_SEQUENCES: tuple[int, ...] = (128, 512)
_LAYERED = ("mobilenet_v2", "resnet50")
_QUICK = ("mobilenet_v2", "resnet18", "bert_encoder")


@dataclass(frozen=True, slots=True, eq=False)
class Entrants:
    """A case: the model as each engine takes it, and its feeds."""

    case: Case
    prepared: Mapping[str, bytes]
    feeds: Arrays


class Contest:
    """Runs engines on cases and collects results, and notes on what did not work."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: list[Result] = []
        self.memory: list[Itemised] = []
        self.notes: list[str] = []
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
        """All engines on the cases of one model; start-up and memory with the first."""
        startups: dict[str, Startup] = {}
        found = cases(model, self.options)
        for sequence in dict.fromkeys(case.sequence for case in found):
            rivals = [self._entrants(case) for case in found if case.sequence == sequence]
            if self.options.startup and rivals[0].case == found[0]:
                self._itemise(model)  # First, so that kernels are on disk when start-up is timed.
                startups = self._startups(rivals[0])
            for threads in self.options.threads:
                self._compare(rivals, threads, startups)
                startups = {}

    def _entrants(self, case: Case) -> Entrants:
        content, feeds = built(case)
        return Entrants(case, self._prepared(case, content), feeds)

    def _prepared(self, case: Case, content: bytes) -> dict[str, bytes]:
        prepared = {}
        for name in self.engines:
            try:
                prepared[name] = ENGINES[name].prepare(content)
            except Exception as error:  # One engine's failure is a result, not the end.
                self._note(f"{case} on {name}: {error}")
        return prepared

    def _startups(self, entrants: Entrants) -> dict[str, Startup]:
        startups, feeds = {}, entrants.feeds
        for name, content in entrants.prepared.items():
            measure = partial(measure_startup, name, content, feeds, self.options.threads[0])
            try:
                startups[name] = measure()
                if is_ours(name):
                    cold = measure(cold=True).create_ms
                    startups[name] = replace(startups[name], cold_ms=cold)
            except RuntimeError as error:
                self._note(f"start-up with {entrants.case}: {error}")
        return startups

    def _itemise(self, model: str) -> None:
        if {_OURS.name, REFERENCE} <= set(self.engines):
            try:
                self.memory += itemised(model)
            except RuntimeError as error:
                self._note(f"memory of {model}: {error}")

    def _loaded(self, entrants: Entrants, threads: int) -> dict[str, Runner]:
        runners = {}
        for name, content in entrants.prepared.items():
            try:
                runners[name] = ENGINES[name].load(content, threads)
            except Exception as error:
                self._note(f"{entrants.case} on {name}: {error}")
        return runners

    def _compare(
        self, rivals: Sequence[Entrants], threads: int, startups: Mapping[str, Startup]
    ) -> None:
        """Batches of one network take turns too: of small ones as many runs count as roots say."""
        runners = [self._loaded(entrants, threads) for entrants in rivals]
        runs = {
            (entrants.case, name): partial(runner, entrants.feeds)
            for entrants, loaded in zip(rivals, runners, strict=True)
            for name, runner in loaded.items()
        }
        largest = max(entrants.case.batch for entrants in rivals)
        counted = {(case, name): isqrt(largest // case.batch) for case, name in runs}
        outputs = {key: run() for key, run in runs.items()}
        budget = self.options.seconds * len(rivals)
        times = race(runs, threads, self.options.rounds, budget, counted)
        for entrants, loaded in zip(rivals, runners, strict=True):
            print(f"{entrants.case}, {threads} thread(s)", flush=True)
            reference = outputs.get((entrants.case, REFERENCE))
            for name, runner in loaded.items():
                key, case = (entrants.case, name), entrants.case
                found = Result(
                    model=case.model,
                    threads=threads,
                    batch=case.batch,
                    sequence=case.sequence,
                    engine=name,
                    best_ms=min(times[key]) * 1e3,
                    median_ms=median(times[key]) * 1e3,
                    rounds=len(times[key]),
                    max_error=None if reference is None else max_error(outputs[key], reference),
                    predicted_ms=_predicted_ms(runner),
                    startup=startups.get(name) if case == rivals[0].case else None,
                )
                self.results.append(found)
                print(
                    f"  {name:<14} best {found.best_ms:8.2f} ms  median {found.median_ms:8.2f} ms",
                    flush=True,
                )


def cases(model: str, options: argparse.Namespace) -> list[Case]:
    """What is run of a model: the sizes asked for, else those of the whole benchmark."""
    usual: Sequence[int] = (1,) if options.quick else _BATCHES.get(model, (1,))
    sequences: Sequence[int] = _SEQUENCES[:1] if options.quick else _SEQUENCES
    lengths: Sequence[int | None] = options.sequence or sequences
    if model in CONVOLUTIONAL:
        lengths = (None,)
    return [Case(model, b, s) for b in options.batch or usual for s in lengths]


def built(case: Case) -> tuple[bytes, Arrays]:
    """ONNX bytes of a case and its input, the same at every call."""
    print(f"{case}: building", flush=True)
    sizes = {"batch": case.batch, "sequence": case.sequence or _SEQUENCES[0]}
    model = MODELS[case.model](**sizes)
    shape = input_shape(case.model, **sizes)
    feed = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return model.SerializeToString(), {model.graph.input[0].name: feed}


def layers(models: Sequence[str], facts: Sequence[str], options: argparse.Namespace) -> str:
    """Tables of our layers; writes ``layers.md`` where there is a folder for it."""
    pages = {}
    for model in models:
        case = cases(model, options)[0]
        content, feeds = built(case)
        for threads in options.threads:
            found = measure_layers(content, feeds, _OURS.backend, threads, options.rounds)
            pages[f"{case}, {threads} thread(s)"] = layer_page(found)
    if options.output_dir is not None:
        write_layers(options.output_dir / "layers.md", facts, pages)
    return "\n\n".join(f"{title}\n\n{page}" for title, page in pages.items())


def _predicted_ms(runner: Runner) -> float | None:
    return runner.predicted_seconds * 1e3 if isinstance(runner, MnnpyRunner) else None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ``output_dir`` is None where nothing is to be written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, metavar="NAME")
    add("--engines", nargs="+", choices=ENGINES, metavar="NAME")
    add("--threads", nargs="+", type=int, metavar="N", help="1 and 2 where nothing is said")
    add("--batch", nargs="+", type=int, metavar="N", help="1, 8 and 32 of two networks, else 1")
    add("--sequence", nargs="+", type=int, metavar="N", help="tokens of bert_encoder: 128 and 512")
    add("--rounds", type=int, default=40, help="most turns of each engine")
    add("--seconds", type=float, help="budget per case and number of threads; else 8")
    add("--output-dir", type=Path, help="where cpu.md, cpu.json and layers.md go")
    add("--no-startup", dest="startup", action="store_false", help="skip start-up and memory")
    add("--per-layer", action="store_true", help="only the layers of our plans: layers.md")
    add("--quick", action="store_true", help="three networks in a minute")
    options = parser.parse_args(arguments)
    for name in ("threads", "batch", "sequence", "rounds"):
        given = getattr(options, name)
        if given is not None and np.min(given) < 1:
            parser.error(f"--{name} must be at least 1")
    parts = ("models", "engines", "threads", "batch", "sequence")
    whole = not options.quick and options.startup and not any(getattr(options, p) for p in parts)
    if options.output_dir is None and (whole or options.per_layer):
        options.output_dir = RESULTS
    options.layered = _LAYERED if whole else ()
    options.startup = options.startup and not options.quick
    options.seconds = options.seconds or (2.0 if options.quick else 8.0)
    options.threads = options.threads or [1, 2]
    options.engines = options.engines or _ENGINES
    usual = _LAYERED if options.per_layer else _QUICK if options.quick else MODELS
    options.models = options.models or list(usual)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or show layers; results are written after every model."""
    options = parse(arguments)
    if options.per_layer:
        print(layers(options.models, machine_facts([_OURS.name]), options))
        return 0
    contest = Contest(options)
    facts = machine_facts(contest.engines)
    for model in options.models:
        contest.compare(model)
        report = Report(contest.results, facts, contest.notes, contest.memory)
        if options.output_dir is not None:
            report.write(options.output_dir)
    print(report.markdown())
    if options.layered:
        print(layers(options.layered, facts[: -len(contest.engines)], options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
