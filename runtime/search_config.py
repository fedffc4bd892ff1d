"""What to search, from YAML: the model, its shapes, the candidates and the budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnnpy.runtime.config_file import Fields, find_config, read_config
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.registry import backend_names
from mnnpy.runtime.session_config import read_constraints

OBJECTIVES = ("latency",)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A search, written down.

    Parameters
    ----------
    shapes : input name -> shape; inputs of fixed shape may be left out.
    backends : whose candidates compete.
    budget : seconds for measuring layers.
    memory_cap_nbytes : most bytes of arenas that the plan may need.
    output : where the plan goes.
    """

    model: Path | None
    shapes: dict[str, tuple[int, ...]]
    backends: tuple[str, ...]
    threads: int | None
    constraints: Constraints
    budget: float
    repeats: int
    seed: int
    objective: str
    memory_cap_nbytes: int | None
    output: Path


def load_search_config(name: str | Path) -> SearchConfig:
    """A search configuration by path or by the name of a shipped one.

    The model is relative to the file, the output to the working directory.

    Raises
    ------
    ConfigError
        With every unknown key and wrong value, each with its place in the file and the choices.
    """
    fields = read_config(find_config("search", name))
    model = fields.text("model")
    config = SearchConfig(
        model=None if model is None else fields.source.parent / model,
        shapes=_read_shapes(fields.section("shapes")),
        backends=fields.choices("backends", backend_names(), ("numpy",)),
        threads=fields.integer("threads", None, least=1),
        constraints=read_constraints(fields.section("constraints")),
        budget=fields.number("budget", 30.0),
        repeats=fields.integer("repeats", 10, least=1) or 1,
        seed=fields.integer("seed", 0) or 0,
        objective=fields.choice("objective", OBJECTIVES, "latency"),
        memory_cap_nbytes=fields.integer("memory_cap_nbytes", None),
        output=Path(fields.text("output") or f"{fields.source.stem}.plan.json"),
    )
    fields.finish()
    return config


def _read_shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
    return {str(name): fields.integers(name) for name in fields.entries}
