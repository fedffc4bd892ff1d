"""Every error that mnnpy raises on purpose.

::

    MnnpyError
    ├── ModelError                  the model itself is at fault
    │   ├── InvalidModelError       not ONNX, or ONNX that breaks its own rules
    │   ├── ModelFormatError        a .mnnpy file that is truncated, corrupted or of another version
    │   ├── UnsupportedOperatorError  operators that no importer knows, all of them at once
    │   └── ShapeError              types or shapes that do not fit an operator
    ├── FeedError                   what was given to ``run`` does not fit the model's inputs
    ├── BackendError                a backend cannot be used here, or cannot run an operator
    ├── PlanError                   a plan does not fit the model, or none fits the constraints
    ├── ConfigError                 a YAML file or an option with an unknown key or a wrong value
    └── ExecutionError              a kernel failed while running

Messages name the node, the operator, the values seen and what the reader can do.
"""

from __future__ import annotations


class MnnpyError(Exception):
    """Base of every error raised on purpose by mnnpy."""


class ModelError(MnnpyError):
    """The model is at fault."""


class InvalidModelError(ModelError):
    """The input is not ONNX, or is ONNX that breaks ONNX's own rules."""


class ModelFormatError(ModelError):
    """A ``.mnnpy`` file is truncated, corrupted, hostile or of another version."""


class UnsupportedOperatorError(ModelError):
    """The model uses operators that no importer knows; the message lists all of them."""


class ShapeError(ModelError):
    """Types or shapes that break an operator's rule."""


class FeedError(MnnpyError):
    """A feed is missing, unknown, or of the wrong dtype, rank or size."""


class BackendError(MnnpyError):
    """A backend cannot be used on this machine, or cannot run an operator in strict mode."""


class PlanError(MnnpyError):
    """A plan does not fit the model, or the constraints leave no candidate."""


class ConfigError(MnnpyError):
    """A configuration has an unknown key or a wrong value."""


class ExecutionError(MnnpyError):
    """A kernel failed while running; names the step."""
