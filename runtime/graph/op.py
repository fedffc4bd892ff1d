"""The base of every operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mnnpy.runtime.graph.types import Array, ArrayModule, Type, Value


@dataclass(frozen=True, slots=True)
class Op:
    """An operator: a frozen dataclass whose fields are its attributes.

    Fields hold int, float, str, bool, None, tuples of these, operators or graphs, so that the
    model file can hold them; element types are fields of their name (``"float32"``).

    Subclasses give ``infer`` and ``reference`` with one positional parameter per input; an absent
    optional input arrives as ``None``. ``infer`` sees :class:`Value`; ``reference`` is textbook
    array code on the caller's array module, and returns one array per output.
    """

    domain: ClassVar[str] = ""
    deterministic: ClassVar[bool] = True
    """False where two runs on the same inputs may differ (random operators)."""

    bounded: ClassVar[bool] = True
    """False where the inputs' sizes do not tell how long the reference runs (operators that run
    graphs): it runs in sessions only, never while planning or converting."""

    host_only: ClassVar[bool] = False
    """True where the reference works on the host's arrays or objects only."""

    view: ClassVar[bool] = False
    """True where output 0 is input 0 under another shape, so that both share memory."""

    shape_inputs: ClassVar[tuple[int, ...]] = ()
    """Positions of inputs whose content, not only whose type, decides the output types."""

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    def kind(self) -> str:
        """The operator's name, ONNX spelling, with its domain where that is not ONNX's own."""
        return operator_kind(type(self))

    def infer(self, *inputs: Any, **_: Any) -> tuple[Type, ...]:
        """Output types. Raises ``ShapeError`` where the inputs break the operator's rule."""
        raise NotImplementedError(self.kind)

    def reference(self, xp: ArrayModule, *inputs: Any, **_: Any) -> tuple[Array, ...]:
        """Compute the outputs with the array module ``xp``, to be read rather than to be fast."""
        raise NotImplementedError(self.kind)

    def view_offsets(
        self, inputs: Sequence[Value | None], outputs: Sequence[Type]
    ) -> tuple[int, ...] | None:
        """Where the outputs lie, in elements, within row-major input 0; None where they do not."""
        return (0,) if self.view else None

    def content(self, inputs: Sequence[Value | None]) -> tuple[Array, ...] | None:
        """Outputs that follow from the inputs' *types* alone (``Shape``, ``Size``), else None."""
        return None

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        """Multiply-adds of the textbook algorithm; 0 where bytes dominate."""
        return 0


def operator_kind(operator: type[Op]) -> str:
    """The name under which files know an operator class, and users its operators."""
    return f"{operator.domain}.{operator.__name__}" if operator.domain else operator.__name__
