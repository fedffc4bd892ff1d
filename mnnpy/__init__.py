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

from typing import TYPE_CHECKING, Any

import mnnpy.runtime

if TYPE_CHECKING:
    from mnnpy.converter.pipeline import convert
    from mnnpy.models import load_model
    from mnnpy.runtime import errors
    from mnnpy.runtime.ops.user import OperatorLibrary
    from mnnpy.session import Session

__version__ = mnnpy.runtime.VERSION
__all__ = ["OperatorLibrary", "Session", "__version__", "convert", "errors", "load_model"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is used (PEP 562)."""
    if name == "Session":
        from mnnpy.session import Session

        return Session
    if name == "convert":
        from mnnpy.converter.pipeline import convert

        return convert
    if name == "load_model":
        from mnnpy.models import load_model

        return load_model
    if name == "OperatorLibrary":
        from mnnpy.runtime.ops.user import OperatorLibrary

        return OperatorLibrary
    if name == "errors":
        from mnnpy.runtime import errors

        return errors
    raise AttributeError(f"module 'mnnpy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
