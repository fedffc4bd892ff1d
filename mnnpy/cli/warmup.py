"""``mnnpy warmup``: make ready what a first session would have to wait for."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated

import typer

from mnnpy import Session
from mnnpy.backends.numba_cpu.object_cache import host_object_cache
from mnnpy.cli import options
from mnnpy.cli.progress import progress_bar
from mnnpy.runtime.preinference.explain import nbytes_text, seconds_text


def warmup(
    model: options.Model,
    shape: options.Shapes = None,
    backend: options.Backend = "numba",
    threads: options.Threads = None,
    plan: options.PlanFile = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Forget the kernels of all models before.")
    ] = False,
) -> None:
    """Compile ahead: later sessions of this model and these shapes find their kernels on disk.

    **Examples**

    ```
    mnnpy warmup model.mnnpy
    mnnpy warmup model.mnnpy --shape 8,3,224,224
    mnnpy warmup model.mnnpy --clear
    ```

    Kernels are kept per processor and version, in a directory of the user; deleting it is safe.
    """
    kept = host_object_cache()
    if clear:
        typer.echo(f"removed {nbytes_text(kept.clear())} of kernels from {kept.directory}")
    start = perf_counter()
    with progress_bar(f"warming up {model.name}") as report:
        session = Session(model, backend, threads, plan=plan)
        session.prepare(options.shapes_for(session.graph, shape), report)
    seconds = seconds_text(perf_counter() - start)
    typer.echo(f"{model.name} was ready on {session.backend} after {seconds}")
