"""Session options from YAML: what ``Session(...)`` takes, written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnnpy.runtime.config_file import Fields, find_config, read_config
from mnnpy.runtime.contracts import Config
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.registry import backend_names, scheme_names
from mnnpy.runtime.session import PRECISIONS


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Options of a session, each as :class:`~mnnpy.runtime.session.Session` takes it."""

    model: Path | None = None
    backend: str = "auto"
    threads: int | None = None
    precision: str = "high"
    strict: bool = False
    constraints: Constraints = field(default_factory=Constraints)
    plan: Path | None = None

    def options(self) -> dict[str, Any]:
        """Keyword arguments of a session, the model aside."""
        return {
            "backend": self.backend,
            "threads": self.threads,
            "precision": self.precision,
            "strict": self.strict,
            "constraints": self.constraints,
            "plan": self.plan,
        }


def load_session_config(name: str | Path) -> SessionConfig:
    """A session configuration by path or by the name of a shipped one.

    Paths in the file are relative to the file.

    Raises
    ------
    ConfigError
        With every unknown key and wrong value, each with its place in the file and the choices.
    """
    fields = read_config(find_config("session", name))
    config = SessionConfig(
        model=_beside(fields, fields.text("model")),
        backend=fields.choice("backend", ("auto", *backend_names()), "auto"),
        threads=fields.integer("threads", None, least=1),
        precision=fields.choice("precision", PRECISIONS, "high"),
        strict=fields.flag("strict", False),
        constraints=read_constraints(fields.section("constraints")),
        plan=_beside(fields, fields.text("plan")),
    )
    fields.finish()
    return config


def read_constraints(fields: Fields) -> Constraints:
    """The ``constraints`` section: schemes allowed, forbidden, pinned, and limits."""
    default, schemes = Constraints(), scheme_names()
    return Constraints(
        allowed=fields.choices_by_key("allowed", schemes),
        forbidden=fields.choices_by_key("forbidden", schemes),
        pinned=_read_pinned(fields.section("pinned"), schemes),
        max_error=fields.number("max_error", default.max_error),
        error_budget=fields.number("error_budget", default.error_budget),
        max_workspace_nbytes=fields.integer("max_workspace_nbytes", None),
        fuse=fields.flag("fuse", default.fuse),
        parts=fields.integer("parts", None, least=1),
        join=fields.text("join"),
    )


def _read_pinned(
    fields: Fields, schemes: Sequence[str]
) -> dict[str, tuple[str, str, Config | None]]:
    """``node: {backend: numpy, scheme: conv_winograd, config: {tile: 4}}`` by node name."""
    pinned = {}
    for node in fields.entries:
        inner = fields.section(node)
        backend = inner.choice("backend", backend_names(), "numpy")
        scheme = inner.choice("scheme", schemes, "")
        given = inner.entries.get("config")
        config = inner.section("config")
        config.known.update(dict.fromkeys(config.entries))
        items = ((str(key), value) for key, value in config.entries.items())
        wanted = None if given is None else tuple(sorted(items))
        pinned[str(node)] = (backend, scheme, wanted)
    return pinned


def _beside(fields: Fields, path: str | None) -> Path | None:
    return None if path is None else fields.source.parent / path
