"""ONNX Runtime's errors, and which of them an error of mnnpy is.

As there, none is another's base; all are :class:`~mnnpy.runtime.errors.MnnpyError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mnnpy.runtime.errors import (
    BackendError,
    ConfigError,
    ExecutionError,
    FeedError,
    InvalidModelError,
    MnnpyError,
    ModelFormatError,
    PlanError,
    ShapeError,
    UnsupportedOperatorError,
)


class Fail(MnnpyError):  # noqa: N818
    """A model that cannot be loaded or run for a reason that has no name of its own."""


class InvalidArgument(MnnpyError):  # noqa: N818
    """What was given does not fit: a feed, an output's name, a model without content."""


class NoSuchFile(MnnpyError):  # noqa: N818
    """The model's file does not exist."""


class NoModel(MnnpyError):  # noqa: N818
    """Never raised here: a session has a model."""


class EngineError(MnnpyError):
    """Never raised here."""


class RuntimeException(MnnpyError):  # noqa: N818
    """A backend that cannot be used, or fails on its own account."""


class InvalidProtobuf(MnnpyError):  # noqa: N818
    """The model's bytes are no ONNX, or are truncated."""


class ModelLoaded(MnnpyError):  # noqa: N818
    """Never raised here: a session loads its model once."""


class NotImplemented(MnnpyError):  # noqa: N818
    """Operators that no importer knows, and parts of this interface that are not offered."""


class InvalidGraph(MnnpyError):  # noqa: N818
    """ONNX that breaks ONNX's own rules: operators, attributes, names, types."""


class EPFail(MnnpyError):  # noqa: N818
    """Never raised here: what a backend cannot run, another one runs."""


class ModelLoadCanceled(MnnpyError):  # noqa: N818
    """Never raised here."""


class ModelRequiresCompilation(MnnpyError):  # noqa: N818
    """Never raised here."""


class NotFound(MnnpyError):  # noqa: N818
    """Never raised here."""


class DeviceReset(MnnpyError):  # noqa: N818
    """Never raised here."""


_MEANINGS: tuple[tuple[type[MnnpyError], type[MnnpyError]], ...] = (
    (FeedError, InvalidArgument),
    (UnsupportedOperatorError, NotImplemented),
    (ShapeError, Fail),
    (InvalidModelError, InvalidGraph),
    (ModelFormatError, InvalidProtobuf),
    (BackendError, RuntimeException),
    (PlanError, Fail),
    (ConfigError, InvalidArgument),
    (ExecutionError, Fail),
)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what mnnpy raises as the error that ONNX Runtime has for it, with the same text."""
    try:
        yield
    except MnnpyError as error:
        meaning = next((there for here, there in _MEANINGS if isinstance(error, here)), None)
        if meaning is None:
            raise
        raise meaning(str(error)) from error
