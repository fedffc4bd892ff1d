"""``mnnpy calibrate``: what schemes cost on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mnnpy.cli.progress import progress_bar
from mnnpy.runtime.coefficients import save_coefficients
from mnnpy.runtime.devices import Coefficients
from mnnpy.runtime.registry import backend_names, usable_backend, why_unusable
from mnnpy.runtime.text_table import text_table

_HEADINGS = ("scheme", "GMAC/s", "GB/s", "us per call")


def calibrate(
    backend: Annotated[
        str | None,
        typer.Argument(help="One backend; all that are usable unless given.", show_default=False),
    ] = None,
) -> None:
    """Measure what every scheme costs on this machine, so that plans choose well here.

    Takes up to a minute a backend; the result is kept in your cache directory. For the numba
    backend the tiles of its products are timed first: they decide what the rest is measured with.

    **Examples**

    ```
    mnnpy calibrate
    mnnpy calibrate numpy
    ```
    """
    usable = (name for name in backend_names() if why_unusable(name) is None)
    for name in usable if backend is None else (backend,):
        _calibrate(name)


def _calibrate(name: str) -> None:
    from mnnpy.runtime.calibration import calibrate as measure

    backend = usable_backend(name)
    if name == "numba":
        _time_tiles()
    with progress_bar(f"calibrating {name}") as report:
        fitted = measure(backend, lambda scheme, done, total: report(done / total, scheme))
    path = save_coefficients(name, fitted)
    rows = [[scheme, *_rates(entry)] for scheme, entry in fitted.items()]
    typer.echo(text_table(_HEADINGS, rows, _HEADINGS[1:]))
    typer.echo(f"\nwrote {path}\n")


def _time_tiles() -> None:
    from mnnpy.backends.numba_cpu.tile_rates import renew_rates

    path, rates = renew_rates()
    rows = [[f"{rows} x {vectors}", f"{rate * 1e-9:.3g}"] for rows, vectors, rate in rates]
    typer.echo(text_table(("rows x vectors of a tile", "GMAC/s"), rows, ("GMAC/s",)))
    typer.echo(f"\nwrote {path}\n")


def _rates(entry: Coefficients) -> list[str]:
    return [
        f"{1e-9 / entry.seconds_per_mac:.3g}" if entry.seconds_per_mac else "-",
        f"{1e-9 / entry.seconds_per_byte:.3g}" if entry.seconds_per_byte else "-",
        f"{entry.seconds_per_launch * 1e6:.3g}",
    ]
