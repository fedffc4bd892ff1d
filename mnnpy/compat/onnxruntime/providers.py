"""Execution providers as backends: which there are, and which one a list of them asks for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnnpy.runtime.registry import why_unusable

_CPU, _CUDA, _TENSORRT = (
    "CPUExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
_ALL = (
    *("NvTensorRTRTXExecutionProvider", _TENSORRT, _CUDA, "MIGraphXExecutionProvider"),
    *("OpenVINOExecutionProvider", "DnnlExecutionProvider"),
    *("VitisAIExecutionProvider", "QNNExecutionProvider", "NnapiExecutionProvider"),
    *("VSINPUExecutionProvider", "JsExecutionProvider", "CoreMLExecutionProvider"),
    *("ACLExecutionProvider", "DmlExecutionProvider", "RknpuExecutionProvider"),
    *("WebNNExecutionProvider", "WebGpuExecutionProvider", "XnnpackExecutionProvider"),
    *("CANNExecutionProvider", "AzureExecutionProvider", _CPU),
)


@dataclass(frozen=True, slots=True)
class Providers:
    """Providers of a session, in order of preference; the CPU's is always the last."""

    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.options)

    @property
    def backend(self) -> str:
        """The backend that the first provider stands for."""
        if self.names[0] == _CUDA:
            return "cuda"
        return "numba" if why_unusable("numba") is None else "numpy"


def get_all_providers() -> list[str]:
    """Every provider that ONNX Runtime has a name for."""
    return list(_ALL)


def get_available_providers() -> list[str]:
    """The providers that a backend stands for here."""
    return [_CUDA, _CPU] if why_unusable("cuda") is None else [_CPU]


def get_device() -> str:
    """``"GPU"`` where the CUDA backend can be used, else ``"CPU"``."""
    return "GPU" if _CUDA in get_available_providers() else "CPU"


def choose_providers(
    providers: Sequence[str | tuple[str, Mapping[Any, Any]]] | None,
    provider_options: Sequence[Mapping[Any, Any]] | None,
) -> Providers:
    """The providers to use of those asked for, with a warning for each that is not there.

    TensorRT's stands for CUDA's. No list means all that are available.

    Raises
    ------
    ValueError
        Where the arguments are of the wrong form.
    RuntimeError
        Where a provider has a name that ONNX Runtime does not know.
    """
    available = get_available_providers()
    chosen: dict[str, Mapping[str, str]] = {}
    for name, options in _asked(providers, provider_options) or ((name, {}) for name in available):
        found = _CUDA if name == _TENSORRT and _CUDA in available else name
        if found in chosen:
            _warn(f"provider {name!r} is given twice; the first counts")
            continue
        if found not in available:
            _warn(f"provider {name!r} is not available here; there are {', '.join(available)}")
        if name not in _ALL:
            raise RuntimeError(f"{name!r} is not the name of a provider; {', '.join(_ALL)} are")
        if found in available:
            chosen[found] = {} if found == _CPU else {str(k): str(v) for k, v in options.items()}
    return Providers({**chosen, _CPU: {}} if _CPU not in chosen else chosen)


def _asked(
    providers: Sequence[str | tuple[str, Mapping[Any, Any]]] | None,
    provider_options: Sequence[Mapping[Any, Any]] | None,
) -> list[tuple[str, Mapping[Any, Any]]]:
    """Names with their options, checked for form."""
    if providers is None:
        return []
    if not isinstance(providers, Sequence):
        raise ValueError(f"providers must be a sequence of names, not {providers!r}")
    if provider_options is None:
        return [_named(entry) for entry in providers]
    if not isinstance(provider_options, Sequence) or len(provider_options) != len(providers):
        raise ValueError(
            f"provider_options must be as many as the {len(providers)} providers, "
            f"not {provider_options!r}"
        )
    asked: list[tuple[str, Mapping[Any, Any]]] = []
    for name, options in zip(providers, provider_options, strict=True):
        if not isinstance(name, str) or not isinstance(options, dict):
            raise ValueError(
                f"with provider_options, {name!r} must be a name and {options!r} a dict"
            )
        asked.append((name, options))
    return asked


def _named(entry: Any) -> tuple[str, Mapping[Any, Any]]:
    match entry:
        case str():
            return entry, {}
        case (str(name), dict(options)) if isinstance(entry, tuple):
            return name, options
    raise ValueError(f"providers are names or pairs of a name and a dict of options, not {entry!r}")


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)
