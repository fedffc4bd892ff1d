"""``mnnpy compare``: backends against a trusted side, and the step at which they part."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mnnpy import Session
from mnnpy.bisecting import PLAN_NAME, Bisection, Culprit, bisect, write_repro
from mnnpy.cli import options
from mnnpy.cli.feeds import feeds_from_files, refuse_shapes
from mnnpy.cli.progress import progress_bar
from mnnpy.comparing import Tolerances, differences
from mnnpy.data_sets import data_sets_in, model_in, read_data_set
from mnnpy.models import load_model
from mnnpy.runtime.errors import ExecutionError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.preinference.explain import config_text
from mnnpy.runtime.registry import backend_names, usable_backend, why_unusable
from mnnpy.runtime.text_table import text_table
from mnnpy.sampling import random_feeds, shape_sets
from mnnpy.trusted import GivenOutputs, Trusted, trusted_side

_HEADINGS = ("inputs", "backend", "output", "max abs", "relative", "verdict")


@dataclass(frozen=True, slots=True)
class Case:
    """What a model is run on, and what says what comes out."""

    label: str
    feeds: dict[str, Any]
    trusted: Trusted


def compare(
    model: Annotated[
        Path,
        typer.Argument(
            help="A model, or a folder with one and its `test_data_set_*`, such as a repro.",
            show_default=False,
        ),
    ],
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backends", "--backend", "-b", help="`numpy,numba`; all that are usable unless given."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime, or one of our backends; without ONNX Runtime it is numpy.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            "--shapes",
            "-s",
            help="Shape of an input, `name=1,3,224,224`; given again, a second set of shapes. Two "
            "sizes of every symbolic dimension unless given.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="Files as for `mnnpy run`; random of both signs unless given."
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help=options.TOLERANCE_HELP, show_default="by element type")
    ] = None,
    bisecting: Annotated[
        bool, typer.Option("--bisect", help="Name the first step that computes something wrong.")
    ] = False,
    repro: Annotated[
        Path, typer.Option(metavar="DIR", help="Where --bisect saves that step as a model.")
    ] = Path("repro"),
    plan: options.PlanFile = None,
    threads: options.Threads = None,
    seed: options.Seed = 0,
) -> None:
    """Compare what backends compute with ONNX Runtime, or with each other.

    The relative error is max|difference| / max|expected|. Accepted are 1e-4 for float32, 1e-2 for
    float16, 5e-2 for bfloat16 and 1e-9 for float64; integers must be equal, but those of 8 bits,
    which rounding makes, may be one off.

    **Examples**

    ```
    mnnpy compare model.onnx
    mnnpy compare model.onnx --backends numpy,numba --against onnxruntime --bisect
    mnnpy compare detector.onnx -s image=1,3,64,64 -s image=2,3,96,128
    mnnpy compare bert.onnx -i ids=ids.npy -i mask=mask.npy --tolerance float16=0.05
    ```

    Ends with 1 where outputs differ (or a step does, with --bisect), with 2 on bad input.
    """
    tolerances = Tolerances.parsed(tolerance or ())
    folder = model if model.is_dir() else None
    path = model if folder is None else model_in(folder)
    graph = load_model(path)
    cases = _cases(path, folder, graph, against, shape, inputs, threads, seed)
    names = _backends(backends, cases[0].trusted.name)
    sessions = [Session(graph, name, threads, plan=plan) for name in names]
    _say_random_operators(graph)
    fits = _compare(sessions, cases, tolerances)
    if bisecting:
        fits = _bisect(sessions, cases, tolerances, repro) and fits
    if not fits:
        raise typer.Exit(1)


def _cases(
    path: Path,
    folder: Path | None,
    graph: Graph,
    against: str | None,
    shape: Sequence[str] | None,
    inputs: Sequence[str] | None,
    threads: int | None,
    seed: int,
) -> list[Case]:
    """Given inputs, those of a folder's data sets, or random ones of several shapes."""
    if inputs:
        refuse_shapes(shape)
        feeds = feeds_from_files(graph, inputs)
        return [Case(_label(feeds), feeds, trusted_side(path, against, threads))]
    if folder is not None and not shape and any(folder.glob("test_data_set_*")):
        side = None if against is None else trusted_side(path, against, threads)
        cases = []
        for data_set in data_sets_in(folder):
            feeds, expected = read_data_set(data_set, graph)
            cases.append(Case(data_set.name, feeds, side or GivenOutputs("given", expected)))
        return cases
    side = trusted_side(path, against, threads)
    given = options.given_shapes(graph, shape)
    sets = [shapes for part in given for shapes in shape_sets(graph, part)]
    fed = [random_feeds(graph, shapes, seed) for shapes in sets]
    return [Case(_label(feeds), feeds, side) for feeds in fed]


def _backends(given: Sequence[str] | None, trusted: str) -> list[str]:
    """Backends to judge: those that are given, or all that are usable; says which are not."""
    if given:
        wanted = [name for text in given for name in text.split(",") if name]
        return [usable_backend(name).name for name in wanted]
    names = []
    for name in backend_names():
        reason = why_unusable(name)
        if reason is not None:
            typer.echo(f"skipped {name}: {reason}", err=True)
        elif name != trusted:
            names.append(name)
    return names


def _compare(sessions: Sequence[Session], cases: Sequence[Case], tolerances: Tolerances) -> bool:
    rows: list[list[str]] = []
    fits: list[bool] = []
    with progress_bar("comparing") as report:
        for index, case in enumerate(cases):
            report(index / len(cases), case.label)
            expected = case.trusted.outputs(case.feeds)
            for session in sessions:
                try:
                    found = session.run(case.feeds)
                except ExecutionError as error:
                    rows.append([case.label, session.backend, "-", "-", "-", str(error)])
                    fits.append(False)
                    continue
                for entry in differences(expected, found, tolerances):
                    rows.append([case.label, session.backend, entry.name, *entry.texts()])
                    fits.append(entry.fits)
    typer.echo(f"against {', '.join(dict.fromkeys(case.trusted.name for case in cases))}\n")
    typer.echo(text_table(_HEADINGS, rows, ("max abs", "relative")))
    typer.echo(f"\n{sum(fits)} of {len(fits)} outputs fit")
    return all(fits)


def _bisect(
    sessions: Sequence[Session], cases: Sequence[Case], tolerances: Tolerances, folder: Path
) -> bool:
    """Judge every step; the first wrong one of each backend is described and saved."""
    clean = True
    for session in sessions:
        for case in cases:
            with progress_bar(f"bisecting {session.backend}, {case.label}"):
                found = bisect(session, case.trusted, case.feeds, tolerances)
            typer.echo(f"\n{session.backend}, {case.label}: {_summary(found)}")
            if found.culprits:
                clean = False
                first = found.culprits[0]
                typer.echo(_described(first))
                _save(first, folder / session.backend, tolerances)
                break
    return clean


def _summary(found: Bisection) -> str:
    skipped = f", {len(found.random)} random ones not judged" if found.random else ""
    if not found.culprits:
        return f"{found.steps} steps agree{skipped}"
    return f"{len(found.culprits)} of {found.steps} steps are wrong on right inputs{skipped}"


def _described(culprit: Culprit) -> str:
    step, entry = culprit.step, culprit.difference
    absolute, relative, verdict = entry.texts()
    fault = (
        "the kernel: the operator's reference gives what is expected"
        if culprit.blames_kernel
        else "the operator or its conversion: its reference is wrong as well"
    )
    config = config_text(step.choice.config)
    facts = {
        "first wrong": entry.name,
        "node": step.node.name,
        "operator": step.node.op.kind,
        "backend": step.choice.backend,
        "scheme": step.choice.scheme + (f" ({config})" if step.choice.config else ""),
        "error": f"max abs {absolute}, relative {relative}: {verdict}",
        "at fault": fault,
    }
    return "\n".join(f"  {key:<12} {value}" for key, value in facts.items())


def _save(culprit: Culprit, folder: Path, tolerances: Tolerances) -> None:
    if culprit.graph is None:
        typer.echo("  no repro: a copy between layouts or devices is no model")
        return
    alone = write_repro(culprit, folder, tolerances)
    words = ["mnnpy", "compare", str(folder), "--backends", culprit.step.choice.backend]
    if (folder / PLAN_NAME).exists():
        words += ["--plan", str(folder / PLAN_NAME)]
    remark = "wrong alone, too" if alone else "right alone: wrong only within the whole"
    typer.echo(f"  repro        {folder} ({remark})\n  run it       {shlex.join(words)}")


def _say_random_operators(graph: Graph) -> None:
    kinds = sorted({node.op.kind for node in graph.nodes if not node.op.deterministic})
    if kinds:
        typer.echo(f"{', '.join(kinds)}: random, no two runs agree on what follows", err=True)


def _label(feeds: dict[str, Any]) -> str:
    """Shapes, or types where there is none, of what is fed."""
    return " ".join("x".join(map(str, np.shape(feed))) or "scalar" for feed in feeds.values())
