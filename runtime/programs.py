"""Bound steps as something to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.runtime.contracts import Run


@dataclass(frozen=True, slots=True)
class SequentialProgram:
    """Steps called one after another."""

    steps: Sequence[Run]

    def expect(self) -> None:
        """Nothing sleeps."""

    def __call__(self) -> None:
        for step in self.steps:
            step()
