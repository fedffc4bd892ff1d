"""``mnnpy demo``: handwritten digits from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnnpy.cli.progress import spinner
from mnnpy.runtime.preinference.explain import seconds_text
from mnnpy.runtime.registry import backend_names, why_unusable
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("backend", "accuracy", "one image", "all images", "remark")


def demo(
    examples: Annotated[
        Path, typer.Option(metavar="DIR", help="The repository's examples folder.")
    ] = Path("examples"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path(
        "digits.png"
    ),
) -> None:
    """Convert a small digits model, show its plan, and classify held-out digits everywhere.

    **Examples**

    ```
    mnnpy demo
    mnnpy demo --examples ~/mnnpy/examples -o digits.png
    ```
    """
    from mnnpy import Session
    from mnnpy.demo import classify, draw_digits, load_digits

    with spinner("converting digits.onnx"):
        digits = load_digits(examples)
    typer.echo(f"{digits.graph.name}: {len(digits.graph.nodes)} nodes after conversion\n")
    typer.echo(Session(digits.graph).plan(digits.feeds()[:1].shape).explain())
    rows, best = [], None
    for name in backend_names():
        reason = why_unusable(name)
        if reason is not None:
            rows.append([name, "-", "-", "-", reason])
            continue
        with spinner(f"classifying on {name}"):
            found = classify(digits, name)
        best = found if best is None else best
        times = [seconds_text(found.seconds_one), seconds_text(found.seconds_all)]
        rows.append([name, f"{found.accuracy:.2%}", *times, ""])
    typer.echo(f"\n{len(digits.labels)} digits that the model was not trained on:\n")
    typer.echo(text_table(_HEADINGS, rows, _HEADINGS[1:4]))
    assert best is not None
    count = draw_digits(digits, best.predicted, output)
    typer.echo(f"\nwrote {output}: {count} of them with what {best.backend} reads in them")
