"""``mnnpy plan``: how every step will run, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mnnpy import Session
from mnnpy.cli import options
from mnnpy.cli.progress import spinner


def plan(
    model: options.Model,
    shape: options.Shapes = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    step: Annotated[
        str | None,
        typer.Option(help="Position or node name of a step: show what it was chosen from."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A session file, or the name of a shipped one; the other options go before it.",
            show_default=False,
        ),
    ] = None,
    plan: options.PlanFile = None,
) -> None:
    """Show how a model will run: backend, scheme, layout, predicted time and memory of each step.

    **Examples**

    ```
    mnnpy plan model.mnnpy
    mnnpy plan model.mnnpy --shape image=8,3,224,224 --backend numpy
    mnnpy plan model.mnnpy --step 12
    mnnpy plan model.mnnpy --config low_memory
    ```
    """
    given: dict[str, Any] = {"backend": backend, "threads": threads, "plan": plan}
    with spinner(f"planning {model.name}"):
        if config is None:
            session = Session(model, **given)
        else:
            said = {name: value for name, value in given.items() if value not in (None, "auto")}
            session = Session.from_config(config, model, **said)
        made = session.plan(options.shapes_for(session.graph, shape))
    wanted = int(step) if step is not None and step.isdigit() else step
    typer.echo(made.explain(wanted))
