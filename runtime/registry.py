"""The only module that loads backends by name: built-in ones and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from mnnpy.runtime.contracts import Backend
from mnnpy.runtime.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "mnnpy.backends"

_BUILT_IN = {
    "cuda": ("mnnpy.backends.cupy_gpu.backend", "CupyBackend"),
    "numba": ("mnnpy.backends.numba_cpu.backend", "NumbaBackend"),
    "numpy": ("mnnpy.backends.numpy_cpu.backend", "NumpyBackend"),
}

PREFERENCE = ("cuda", "numba", "numpy")
"""What ``backend="auto"`` tries, in order."""

_FALLBACKS = ("numba", "numpy")


def backend_names() -> tuple[str, ...]:
    """Every backend that is installed, usable or not."""
    return (*_BUILT_IN, *sorted(_third_party()))


def scheme_names() -> tuple[str, ...]:
    """Every scheme of every backend that is installed, usable or not."""
    found: set[str] = set()
    for name in backend_names():
        with suppress(BackendError):
            found |= load_backend(name).schemes
    return tuple(sorted(found))


def check_schemes(names: Iterable[str]) -> None:
    """Raise ``ConfigError`` where no installed backend has a scheme of such a name."""
    wanted = frozenset(names)
    unknown = sorted(wanted.difference(scheme_names())) if wanted else []
    if unknown:
        raise ConfigError(
            f"no backend has a scheme {unknown[0]!r}; there are {', '.join(scheme_names())}"
        )


@cache
def load_backend(name: str) -> Backend:
    """The backend of that name, one instance per process.

    Raises
    ------
    BackendError
        Where no such backend is installed, or another package's cannot be loaded.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        backend: Backend = getattr(import_module(module), attribute)()
        return backend
    found = _third_party().get(name)
    if found is None:
        known = ", ".join(backend_names())
        raise BackendError(f"there is no backend {name!r}; installed are {known} (and 'auto')")
    try:
        loaded: Backend = found.load()()
    except Exception as error:
        raise BackendError(f"backend {name!r} ({found.value}) cannot be loaded: {error}") from error
    return loaded


def why_unusable(name: str) -> str | None:
    """Why an installed backend cannot be used here; None where it can."""
    try:
        return load_backend(name).check()
    except BackendError as error:
        return str(error)


def usable_backend(name: str) -> Backend:
    """Load a backend and make sure that it can be used here.

    Raises
    ------
    BackendError
        With the reason and the way out; for ``"auto"`` never, since NumPy is always there.
    """
    if name == "auto":
        return next(b for b in map(load_backend, PREFERENCE) if b.check() is None)
    backend = load_backend(name)
    reason = backend.check()
    if reason is not None:
        raise BackendError(f"backend {name!r} cannot be used here: {reason}")
    return backend


def with_fallbacks(name: str) -> tuple[Backend, ...]:
    """The backend, then those that take over what it cannot run."""
    first = usable_backend(name)
    fallbacks = [other for other in _FALLBACKS if other != first.name]
    if first.name in _FALLBACKS:
        fallbacks = list(_FALLBACKS[_FALLBACKS.index(first.name) + 1 :])
    others = map(load_backend, fallbacks)
    return (first, *(backend for backend in others if backend.check() is None))


def _third_party() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # Costs more than the rest of this package.

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
