"""Progress on stderr for what takes more than a second; nothing where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[float, str], None]
"""Takes the fraction that is done and what is done now."""


@contextmanager
def progress_bar(description: str) -> Iterator[Report]:
    """A bar that disappears when the work is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(description, total=1.0, now="")

        def report(fraction: float, now: str = "") -> None:
            bar.update(task, completed=fraction, now=now)

        yield report


@contextmanager
def spinner(description: str) -> Iterator[None]:
    """A sign of life where nobody can say how much is left."""
    console = Console(stderr=True)
    with console.status(description) if console.is_terminal else nullcontext():
        yield
