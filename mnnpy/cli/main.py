"""``mnnpy``: the commands put together, and what a user sees when something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from mnnpy import __version__
from mnnpy.cli.backends import backends
from mnnpy.cli.bench import bench
from mnnpy.cli.calibrate import calibrate
from mnnpy.cli.compare import compare
from mnnpy.cli.convert import convert
from mnnpy.cli.demo import demo
from mnnpy.cli.info import info
from mnnpy.cli.plan import plan
from mnnpy.cli.run import run
from mnnpy.cli.search import search
from mnnpy.cli.verify import verify
from mnnpy.cli.warmup import warmup
from mnnpy.runtime.errors import MnnpyError

COMMANDS = (
    convert,
    info,
    plan,
    run,
    compare,
    verify,
    bench,
    warmup,
    backends,
    calibrate,
    search,
    demo,
)

BAD_INPUT = 2
"""Exit code of what the user can mend; 1 is a comparison that failed."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", add_completion=False)


def show_version(wanted: bool) -> None:
    """Print the version and end, where asked to."""
    if wanted:
        typer.echo(f"mnnpy {__version__}")
        raise typer.Exit


@app.callback(epilog="`mnnpy COMMAND --help` shows examples of each command.")
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what is logged: fallbacks, passes, ...")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Run neural networks: convert an ONNX model, plan it, run it, and say why.

    **Start here**

    ```
    mnnpy info model.onnx             what is in it
    mnnpy convert model.onnx          write model.mnnpy, which loads faster
    mnnpy plan model.mnnpy            how each step will run
    mnnpy run model.mnnpy -i x.npy    run it
    mnnpy compare model.onnx          whether others compute the same
    mnnpy bench model.mnnpy --steps   how long it takes, and where
    ```
    """
    if verbose:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", force=True)
        logging.getLogger("mnnpy").setLevel(logging.DEBUG)


def reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with errors that a user can mend as a line on stderr instead of a traceback."""

    @wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except MnnpyError as error:
            fail(str(error))
        except OSError as error:
            place = f"{error.filename}: " if error.filename is not None else ""
            fail(f"{place}{error.strerror or error}")
        except MemoryError as error:
            fail(f"this needs more memory than there is: {error}")

    return guarded


def fail(message: str) -> None:
    """Print what is wrong and end with the exit code of bad input."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(BAD_INPUT)


for _command in COMMANDS:
    app.command()(reporting_errors(_command))


def main() -> None:
    """Entry point of the ``mnnpy`` script."""
    app()
