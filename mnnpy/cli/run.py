"""``mnnpy run``: a model on files, pictures, random numbers or ONNX test data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from mnnpy import Session
from mnnpy.cli import options
from mnnpy.cli.feeds import (
    Picture,
    feeds_from_files,
    picture_feed,
    refuse_shapes,
)
from mnnpy.cli.progress import progress_bar, spinner
from mnnpy.cli.tensor_files import write_arrays
from mnnpy.cli.verify import check_folder
from mnnpy.comparing import Tolerances
from mnnpy.runtime.graph.types import dtype_name
from mnnpy.runtime.text_table import text_table
from mnnpy.sampling import random_feeds


def run(
    model: options.Model,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="`.npy`, `.npz` or `.pb` file, or `name=file`. Random numbers unless given.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs to this `.npz`.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture as the input; needs Pillow.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="`HxW` to resize the picture to; the input's unless given.")
    ] = None,
    mean: Annotated[
        str, typer.Option(help="Subtracted from pixels (0 to 255): one number, or one a channel.")
    ] = "0",
    scale: Annotated[
        str, typer.Option(help="Multiplies what is left: one number, or one a channel.")
    ] = "1",
    layout: Annotated[
        Literal["nchw", "nhwc"], typer.Option(help="Axes of the picture input.")
    ] = "nchw",
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Compare with a `test_data_set_*` folder, or all in DIR."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest accepted max|difference| / max|expected|.")
    ] = 1e-3,
    shape: options.Shapes = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    plan: options.PlanFile = None,
    seed: options.Seed = 0,
) -> None:
    """Run a model once and show, write or check its outputs.

    **Examples**

    ```
    mnnpy run model.mnnpy -i x.npy -o y.npz
    mnnpy run bert.onnx -i ids=ids.npy -i mask=mask.npy
    mnnpy run model.onnx --shape 8,3,224,224
    mnnpy run faces.onnx --image photo.jpg --mean 127 --scale 0.0078125
    mnnpy run model.onnx --check test_data_set_0
    ```

    Ends with 1 where outputs differ from the expected ones, with 2 on bad input.
    """
    with spinner(f"loading {model.name}"):
        session = Session(model, backend, threads, plan=plan)
    if check is not None:
        if not check_folder(session, check, Tolerances(floats=tolerance)):
            raise typer.Exit(1)
        return
    graph = session.graph
    feeds: dict[str, Any] = feeds_from_files(graph, inputs or ())
    if image is not None:
        chosen = Picture(image, _size(size), _numbers(mean), _numbers(scale), layout)
        feeds |= picture_feed(graph, chosen)
    if feeds:
        refuse_shapes(shape)
    elif graph.inputs:
        feeds = random_feeds(graph, options.shapes_for(graph, shape), seed)
        typer.echo(f"no inputs given: random ones of seed {seed}", err=True)
    with progress_bar(f"preparing {model.name}") as report:
        session.executable(feeds, report)
    with spinner(f"running {model.name}"):
        results = session.run(feeds)
    rows = [_summary(name, value) for name, value in results.items()]
    typer.echo(text_table(("output", "type", "shape", "min", "mean", "max"), rows))
    if output is not None:
        write_arrays(output, results)
        typer.echo(f"wrote {output}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise typer.BadParameter(f"--size {text!r}: write HEIGHTxWIDTH, such as 240x320") from None
    if min(height, width) < 1:
        raise typer.BadParameter(f"--size {text!r}: a picture has at least one pixel")
    return height, width


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write a number, or three: 123,117,104") from None
    if len(numbers) not in (1, 3):
        raise typer.BadParameter(f"{text!r}: write one number, or three")
    return numbers


def _summary(name: str, value: Any) -> list[str]:
    if not isinstance(value, np.ndarray):
        return [name, type(value).__name__, "-", "-", "-", "-"]
    dtype, shape = dtype_name(value.dtype), "x".join(map(str, value.shape)) or "scalar"
    if value.dtype.kind not in "fiub" or not value.size:
        return [name, dtype, shape, "-", "-", "-"]
    numbers = value.astype(np.float64)
    shown = [f"{number:.6g}" for number in (numbers.min(), numbers.mean(), numbers.max())]
    return [name, dtype, shape, *shown]
