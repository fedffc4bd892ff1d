"""Constraints: what a user allows selection to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mnnpy.runtime.contracts import Config
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.ops.fused import Fused


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a user allows.

    What is said of a node holds for every region with the node in it.

    Parameters
    ----------
    allowed, forbidden : operator kind or node-name pattern -> scheme names.
    pinned : node name -> (backend, scheme, config); config None means any.
    planned : node name -> (backend, scheme, config) of a given plan, where nothing is pinned. A
        config that is not offered, as on other threads or another machine, stands for the offered
        one most like it.
    max_error : largest relative error that a scheme may add.
    error_budget : most that the errors of all steps may sum up to, where there is a choice.
    max_workspace_nbytes : largest workspace of one step.
    fuse : whether regions are considered.
    regions : the regions to use, each by its nodes' names; None leaves them to selection.
    parts : number of parts that a batch runs in, 1 being the whole; None leaves it to planning.
    join : where there are parts, the value behind which the whole batch goes on; None for the end.
    """

    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    forbidden: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pinned: Mapping[str, tuple[str, str, Config | None]] = field(default_factory=dict)
    planned: Mapping[str, tuple[str, str, Config]] = field(default_factory=dict)
    max_error: float = 1e-3
    error_budget: float = 2.8e-4
    max_workspace_nbytes: int | None = None
    fuse: bool = True
    regions: frozenset[tuple[str, ...]] | None = None
    parts: int | None = None
    join: str | None = None

    @property
    def schemes(self) -> frozenset[str]:
        """Every scheme that is named here."""
        pinned = (scheme for _, scheme, _ in (*self.pinned.values(), *self.planned.values()))
        return frozenset(pinned).union(*self.allowed.values(), *self.forbidden.values())

    def concerns(self, node: Node) -> bool:
        """Whether something is said of this node itself, not of its operator."""
        patterns = (*self.allowed, *self.forbidden)
        return any(
            part.name in self.pinned
            or part.name in self.planned
            or any(_fits(pattern, part.name) for pattern in patterns)
            for part in _parts(node)
        )

    def reason_against(
        self, node: Node, backend: str, scheme: str, config: Config | None
    ) -> str | None:
        """Why this candidate may not be used, in words; config None stands for any."""
        parts = _parts(node)
        pins = [pin for part in parts if (pin := self.pinned.get(part.name)) is not None]
        for pin in pins:
            fits = pin[:2] == (backend, scheme) and (config is None or pin[2] in (None, config))
            if not fits:
                return f"pinned to {pin[1]}{shown_config(pin[2])} on {pin[0]}"
        if pins:
            return None
        plan = self._planned(node)
        if plan is not None:
            fits = plan[:2] == (backend, scheme)
            return None if fits else f"the plan says {plan[1]} on {plan[0]}"
        for pattern, schemes in self.forbidden.items():
            if scheme in schemes and _applies(pattern, parts):
                return f"forbidden for {pattern}"
        for pattern, schemes in self.allowed.items():
            if scheme not in schemes and _applies(pattern, parts):
                return f"not among those allowed for {pattern}"
        return None

    def is_planned(self, node: Node) -> bool:
        """Whether a given plan has chosen for the node."""
        return self._planned(node) is not None

    def among(self, node: Node, configs: Sequence[Config]) -> Sequence[Config]:
        """Those of the offered configurations that may be used by the given plan, if any."""
        plan = self._planned(node)
        if plan is None or len(configs) < 2:
            return configs
        wanted = set(plan[2])
        return [max(configs, key=lambda config: len(wanted.intersection(config)))]

    def _planned(self, node: Node) -> tuple[str, str, Config] | None:
        names = [part.name for part in _parts(node)]
        if any(name in self.pinned for name in names):
            return None
        return next((self.planned[name] for name in names if name in self.planned), None)


def shown_config(config: Config | None) -> str:
    """`` (tile=4, split=2)``, or nothing where there is nothing to configure."""
    return f" ({', '.join(f'{key}={value}' for key, value in config)})" if config else ""


def _parts(node: Node) -> tuple[Node, ...]:
    return node.op.graph.nodes if isinstance(node.op, Fused) else (node,)


def _applies(pattern: str, parts: tuple[Node, ...]) -> bool:
    return any(pattern == part.op.kind or _fits(pattern, part.name) for part in parts)


def _fits(pattern: str, name: str) -> bool:
    """Whether a pattern is the name, whatever characters that has, or stands for it."""
    return pattern == name or fnmatchcase(name, pattern)
