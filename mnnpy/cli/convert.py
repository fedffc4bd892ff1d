"""``mnnpy convert``: ONNX to a ``.mnnpy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnnpy.cli.progress import spinner
from mnnpy.runtime.preinference.explain import nbytes_text


def convert(
    model: Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; beside the model unless given."),
    ] = None,
    dump_passes: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the graph after each pass to this folder."),
    ] = None,
) -> None:
    """Convert an ONNX model to a `.mnnpy` file: folded, simplified, portable.

    **Examples**

    ```
    mnnpy convert model.onnx
    mnnpy convert model.onnx -o build/model.mnnpy --dump-passes build/passes
    ```
    """
    from mnnpy.converter.pipeline import convert as convert_model

    target = output or model.with_suffix(".mnnpy")
    with spinner(f"converting {model.name}"):
        graph = convert_model(model, target, dump_passes=dump_passes)
    typer.echo(
        f"{target}: {len(graph.nodes)} nodes, {len(graph.constants)} constants, "
        f"{nbytes_text(target.stat().st_size)}"
    )
