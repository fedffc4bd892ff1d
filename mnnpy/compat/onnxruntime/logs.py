"""What ONNX Runtime sets for the whole process: its log and seed, and who it says it is."""

from __future__ import annotations

import logging
from operator import index

from mnnpy.runtime import VERSION

_FOLLOWED = "1.31.1"
"""The release of ONNX Runtime whose meanings this face has; programs compare it with others."""

_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def get_version_string() -> str:
    """The release of ONNX Runtime that this face follows, not mnnpy's own version."""
    return _FOLLOWED


def get_build_info() -> str:
    """Who really runs the model."""
    return f"mnnpy {VERSION} as ONNX Runtime {_FOLLOWED}"


def set_default_logger_severity(severity: int) -> None:
    """Level of the log ``mnnpy``: 0 everything, 1 information, 2 warnings, 3 errors, 4 fatal ones.

    Raises
    ------
    RuntimeError
        On any other number.
    """
    if severity not in range(len(_LEVELS)):
        raise RuntimeError(f"log severity {severity!r} is not one of 0 (all) to 4 (fatal)")
    logging.getLogger("mnnpy").setLevel(_LEVELS[severity])


def set_default_logger_verbosity(verbosity: int) -> None:
    """Accepted and ignored: the log has levels only."""


def set_seed(seed: int) -> None:
    """Accepted and ignored: random operators draw what their attribute ``seed`` says, or anew."""
    index(seed)


def enable_telemetry_events() -> None:
    """Accepted and ignored: nothing is ever sent."""


def disable_telemetry_events() -> None:
    """Accepted and ignored: nothing is ever sent."""
