"""Reading configuration files: YAML in, checked values out, every mistake in one error."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from mnnpy.runtime.errors import ConfigError


@dataclass(slots=True)
class Fields:
    """One mapping of a configuration file while it is read.

    Every getter takes a key with its default, notes what is wrong instead of raising, and returns
    the default then. :meth:`finish` raises all notes as one error.

    Parameters
    ----------
    entries : the mapping as YAML gave it.
    source : the file, for messages and for what is relative to it.
    path : where the mapping stands in the file, such as ``constraints.pinned``.
    """

    entries: Mapping[str, Any]
    source: Path
    path: str = ""
    problems: list[str] = field(default_factory=list)
    known: dict[str, None] = field(default_factory=dict)
    sections: list[Fields] = field(default_factory=list)

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self._get(key, default)
        if value is None or isinstance(value, str):
            return value
        self._wrong(key, value, "a text")
        return default

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if isinstance(value, bool):
            return value
        self._wrong(key, value, "true or false")
        return default

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self._get(key, default)
        if value not in choices:
            self._wrong(key, value, f"one of {', '.join(choices)}")
            return default
        return str(value)

    def integer(self, key: str, default: int | None, least: int = 0) -> int | None:
        value = self._get(key, default)
        if value is None or (type(value) is int and value >= least):
            return value
        self._wrong(key, value, f"a whole number of at least {least}")
        return default

    def number(self, key: str, default: float, least: float = 0.0) -> float:
        """A number; ``1e-3``, which YAML reads as a text, is one too."""
        value = self._get(key, default)
        try:
            number = None if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = None
        if number is not None and number >= least:
            return number
        self._wrong(key, value, f"a number of at least {least:g}")
        return default

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts; a single text is a list of one."""
        value = self._get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            self._wrong(key, value, "a text or a list of texts")
            return ()
        return tuple(listed)

    def choices(
        self, key: str, choices: Sequence[str], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """A list of texts out of the choices."""
        names = self.names(key) or default
        for name in names:
            if name not in choices:
                self._wrong(key, name, f"among {', '.join(choices)}")
        return names

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers that are not negative."""
        value = self._get(key, [])
        if isinstance(value, list) and all(type(entry) is int and entry >= 0 for entry in value):
            return tuple(value)
        self._wrong(key, value, "a list of whole numbers")
        return ()

    def section(self, key: str) -> Fields:
        """The mapping under a key, empty where there is none."""
        value = self._get(key, {})
        if not isinstance(value, Mapping):
            self._wrong(key, value, "a mapping of keys to values")
            value = {}
        inner = Fields(value, self.source, self._place(key), self.problems)
        self.sections.append(inner)
        return inner

    def choices_by_key(self, key: str, choices: Sequence[str]) -> dict[str, frozenset[str]]:
        """A mapping whose keys are free and whose values are lists of texts out of the choices."""
        inner = self.section(key)
        return {str(name): frozenset(inner.choices(name, choices, ())) for name in inner.entries}

    def finish(self) -> None:
        """Raise ``ConfigError`` with everything that was wrong, unknown keys too."""
        self._note_unknown_keys()
        if self.problems:
            raise ConfigError("\n  ".join([f"{self.source}:", *self.problems]))

    def _note_unknown_keys(self) -> None:
        for key in self.entries:
            if key not in self.known:
                close = get_close_matches(str(key), self.known, 1)
                hint = f", did you mean {close[0]!r}?" if close else ""
                choices = ", ".join(self.known)
                self.problems.append(
                    f"{self._place(str(key))}: unknown key{hint} (known here: {choices})"
                )
        for section in self.sections:
            section._note_unknown_keys()

    def _get(self, key: str, default: Any) -> Any:
        self.known[key] = None
        value = self.entries.get(key)
        return default if value is None else value

    def _wrong(self, key: str, value: object, wanted: str) -> None:
        self.problems.append(f"{self._place(key)}: must be {wanted}, not {reprlib.repr(value)}")

    def _place(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def read_config(path: Path) -> Fields:
    """The file's top mapping.

    Raises
    ------
    ConfigError
        Where the file cannot be read, is no YAML, or holds no mapping.
    """
    import yaml

    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if entries is None:
        entries = {}
    if not isinstance(entries, Mapping):
        found = reprlib.repr(entries)
        raise ConfigError(f"{path}: must hold a mapping of keys to values, not {found}")
    return Fields(entries, path)


def find_config(kind: str, name: str | Path) -> Path:
    """A configuration file by path, or one that is shipped by its name.

    Parameters
    ----------
    kind : folder of the shipped ones: ``"session"`` or ``"search"``.

    Raises
    ------
    ConfigError
        Where there is neither; lists those that are shipped.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = _shipped(kind)
    found = shipped.get(path.name.removesuffix(".yaml"))
    if found is None or path.name != str(name).removeprefix(f"configs/{kind}/"):
        raise ConfigError(
            f"{name}: there is no such file, and the {kind} configurations that are shipped are "
            f"{', '.join(sorted(shipped)) or 'none'}"
        )
    return found


def _shipped(kind: str) -> dict[str, Path]:
    folder = Path(str(files("mnnpy.configs") / kind))
    return {path.stem: path for path in folder.glob("*.yaml")}
