"""Options of sessions and runs, with ONNX Runtime's names, types and defaults."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, fields
from enum import IntEnum
from operator import index
from typing import TYPE_CHECKING, Any

from mnnpy.compat.onnxruntime import exceptions

if TYPE_CHECKING:
    from mnnpy.compat.onnxruntime.values import OrtValue

_LONGEST_KEY = 1024


class GraphOptimizationLevel(IntEnum):
    """How much of the graph may be rewritten: nothing, or (all the others alike) everything."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Ignored: steps run one after another, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(IntEnum):
    """Ignored: the plan decides the order."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


class _Typed:
    """Fields that take values of their default's type only. Raises ``TypeError`` on others."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        known = {entry.name: entry.default for entry in fields(self) if entry.init}  # type: ignore[arg-type]
        if name in known:
            value = _of_type(type(known[name]), value, f"{type(self).__name__}.{name}")
        object.__setattr__(self, name, value)


@dataclass(slots=True, eq=False)
class SessionOptions(_Typed):
    """How a session is made. Honoured are

    ``intra_op_num_threads`` (0 leaves it to the backend), ``graph_optimization_level``,
    ``enable_profiling`` with ``profile_file_prefix``, ``optimized_model_filepath`` (the converted
    model, a ``.mnnpy`` file whatever it is called), fixed dimensions and initialisers. Everything
    else is kept and ignored.
    """

    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_profiling: bool = False
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    execution_order: ExecutionOrder = ExecutionOrder.DEFAULT
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    inter_op_num_threads: int = 0
    intra_op_num_threads: int = 0
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    optimized_model_filepath: str = ""
    profile_file_prefix: str = "onnxruntime_profile_"
    use_deterministic_compute: bool = False
    use_per_session_threads: bool = True
    _config: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _fixed_dims: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _fixed_denotations: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _initializers: dict[str, OrtValue] = field(default_factory=dict, init=False, repr=False)

    def copy(self) -> SessionOptions:
        """Options that later changes of these do not reach."""
        made = copy(self)
        for name in ("_config", "_fixed_dims", "_fixed_denotations", "_initializers"):
            setattr(made, name, dict(getattr(self, name)))
        return made

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Keep a text under a key.

        Honoured are ``mnnpy.backend`` (the backend behind the CPU provider) and
        ``session.disable_cpu_ep_fallback`` ("1": nothing leaves the first provider).
        """
        _add_entry(self._config, key, value)

    def get_session_config_entry(self, key: str) -> str:
        """The text kept under a key. Raises ``RuntimeError`` where there is none."""
        return _entry(self._config, key)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Make every input dimension of this name a number."""
        self._fixed_dims[name] = size

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        """Make every input dimension of this denotation a number."""
        self._fixed_denotations[denotation] = size

    def add_initializer(self, name: str, value: OrtValue) -> None:
        """Use this content for an initialiser of the model."""
        self._initializers[name] = value

    def add_external_initializers(self, names: list[str], values: list[OrtValue]) -> None:
        """Raises ``NotImplemented``: external data are read from the model's folder."""
        raise exceptions.NotImplemented(
            "initialisers with external data are read from their files: put these beside the "
            "model, or give single ones with add_initializer"
        )

    def register_custom_ops_library(self, path: str) -> None:
        """Raises ``NotImplemented``: such libraries are compiled against ONNX Runtime."""
        raise exceptions.NotImplemented(
            f"{path!r}: a library of operators for ONNX Runtime can only run inside of it; write "
            "the operators in Python, and give mnnpy.Session an mnnpy.OperatorLibrary of them"
        )

    def has_providers(self) -> bool:
        """Whether providers were added here. They are given to the session only."""
        return False


@dataclass(slots=True, eq=False)
class RunOptions(_Typed):
    """How one run is done: ``terminate`` refuses it, everything else is kept and ignored."""

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    only_execute_path_to_fetches: bool = False
    terminate: bool = False
    _config: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Keep a text under a key."""
        _add_entry(self._config, key, value)

    def get_run_config_entry(self, key: str) -> str:
        """The text kept under a key. Raises ``RuntimeError`` where there is none."""
        return _entry(self._config, key)


def check_run_options(options: RunOptions | None) -> None:
    """Raise ``TypeError`` on anything else than options, ``Fail`` where they end the run."""
    if options is None:
        return
    if not isinstance(options, RunOptions):
        raise TypeError(f"run_options takes RunOptions or None, not {options!r}")
    if options.terminate:
        raise exceptions.Fail("the run options say terminate: set it to False to run again")


def _of_type(wanted: type, value: Any, what: str) -> Any:
    if wanted is int and hasattr(value, "__index__"):
        return index(value)
    if not isinstance(value, wanted):
        raise TypeError(f"{what} takes {wanted.__name__}, not {value!r}")
    return value


def _add_entry(config: dict[str, str], key: str, value: str) -> None:
    if not (isinstance(key, str) and isinstance(value, str)):
        raise TypeError(f"configuration entries are texts, not {key!r}: {value!r}")
    if not 0 < len(key) <= _LONGEST_KEY:
        raise RuntimeError(f"a configuration key has 1 to {_LONGEST_KEY} letters, not {len(key)}")
    config[key] = value


def _entry(config: dict[str, str], key: str) -> str:
    if key not in config:
        raise RuntimeError(f"no configuration entry {key!r}; there are {sorted(config)}")
    return config[key]
