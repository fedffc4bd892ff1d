"""``mnnpy backends``: which backends can be used here, and why not."""

from __future__ import annotations

import typer

from mnnpy.runtime.registry import backend_names, load_backend, why_unusable
from mnnpy.runtime.text_table import text_table


def backends() -> None:
    """List the installed backends: usable here or not, and why not.

    **Example**

    ```
    mnnpy backends
    ```
    """
    headings = ("backend", "usable", "device", "threads", "remark")
    typer.echo(text_table(headings, [_row(name) for name in backend_names()], ("threads",)))


def _row(name: str) -> list[str]:
    reason = why_unusable(name)
    if reason is not None:
        return [name, "no", "-", "-", reason]
    device = load_backend(name).describe()
    return [name, "yes", device.name, str(device.threads), ", ".join(device.features)]
