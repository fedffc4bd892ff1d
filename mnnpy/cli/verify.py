"""``mnnpy verify``: models against the ONNX test data beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mnnpy import Session
from mnnpy.cli import options
from mnnpy.cli.progress import progress_bar
from mnnpy.comparing import Difference, Tolerances, differences
from mnnpy.data_sets import data_sets_in, model_in, read_data_set
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("set", "output", "max abs", "relative", "verdict")
_ONNX = "1e-3"


def verify(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders with a model and `test_data_set_*` folders beside it.",
            show_default=False,
        ),
    ],
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help=options.TOLERANCE_HELP, show_default="1e-3, as ONNX's")
    ] = None,
) -> None:
    """Run the test data that comes with models, as in ONNX's model zoo.

    **Examples**

    ```
    mnnpy verify resnet50
    mnnpy verify zoo/* --backend numpy --tolerance 1e-4
    ```

    Ends with 1 where outputs differ from the expected ones, with 2 on bad input.
    """
    tolerances = Tolerances.parsed(tolerance or [_ONNX])
    models = [(model_in(folder), folder) for folder in folders]
    fits = []
    for model, folder in models:
        typer.echo(f"{model}\n")
        fits.append(check_folder(Session(model, backend, threads), folder, tolerances))
        typer.echo()
    if not all(fits):
        raise typer.Exit(1)


def check_folder(session: Session, folder: Path, tolerances: Tolerances) -> bool:
    """Run every test data set of a folder, print a table, and say whether all outputs fit.

    Raises
    ------
    FeedError
        Where the folder holds no test data, or its inputs do not fit the model.
    """
    sets = data_sets_in(folder)
    found: list[tuple[str, Difference]] = []
    with progress_bar("checking") as report:
        for index, data_set in enumerate(sets):
            report(index / len(sets), data_set.name)
            found.extend((data_set.name, entry) for entry in _check(session, data_set, tolerances))
    rows = [[name, entry.name, *entry.texts()] for name, entry in found]
    typer.echo(text_table(_HEADINGS, rows, ("max abs", "relative")))
    fitting = sum(entry.fits for _, entry in found)
    typer.echo(f"\n{fitting} of {len(found)} outputs fit")
    return fitting == len(found)


def _check(session: Session, data_set: Path, tolerances: Tolerances) -> Iterator[Difference]:
    feeds, expected = read_data_set(data_set, session.graph)
    yield from differences(expected, session.run(feeds), tolerances)
