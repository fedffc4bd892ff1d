"""mnnpy runs neural networks: it converts ONNX models, plans how to run them, and says why.

::

    from mnnpy import Session, convert

    convert("model.onnx", "model.mnnpy")
    session = Session("model.mnnpy")
    outputs = session.run(x)
    print(session.plan().explain())

What is named here is loaded when it is first used: ``import mnnpy`` by itself loads neither a
backend nor the converter.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mnnpy.runtime import VERSION as __version__

if TYPE_CHECKING:
    from mnnpy.converter.pipeline import convert
    from mnnpy.models import load_model
    from mnnpy.runtime import errors
    from mnnpy.session import Session

__all__ = ["Session", "__version__", "convert", "errors", "load_model"]

_HOMES = {
    "Session": "mnnpy.session",
    "convert": "mnnpy.converter.pipeline",
    "load_model": "mnnpy.models",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name == "errors":
        return import_module("mnnpy.runtime.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'mnnpy' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
