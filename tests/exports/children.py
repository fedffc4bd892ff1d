"""Calling a function in a process of its own, which may die or hang."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_SECONDS = 600

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.exports.exporting", "tests.exports.measuring"])


def in_child(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """(how the process ended, what the function returned or None)."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(_SECONDS) else None
    except EOFError:
        result = None
    process.join(5)
    if process.exitcode is None:
        process.kill()
        return f"took more than {_SECONDS} s", result
    return f"ended with {process.exitcode}", result


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # Exporters print what they think, also from C++.
        os.dup2(silent, stream)
    sender.send(function(*arguments))
