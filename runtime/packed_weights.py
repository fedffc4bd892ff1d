"""Constants as kernels read them: packed once per session, for all of its plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from mnnpy.runtime.contracts import Config, Kernel, Task
from mnnpy.runtime.graph.graph import Node
from mnnpy.runtime.graph.inference import EVALUATED_ELEMENTS
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.model_file import release_pages
from mnnpy.runtime.ops.fused import Fused


@dataclass(slots=True, eq=False, weakref_slot=True)
class Held:
    """Arrays that plans share, freed with the last plan that holds on to them."""

    arrays: tuple[Array, ...]


class PackedWeights:
    """Packed and uploaded constants, shared by the plans of one session."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[object, Held] = WeakValueDictionary()

    def get(self, key: object, make: Callable[[], tuple[Array, ...]]) -> Held:
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Held(make())
        return held

    @property
    def nbytes(self) -> int:
        """Bytes of what plans hold now."""
        return sum(int(array.nbytes) for held in self._held.values() for array in held.arrays)


def packed_constants(kernel: Kernel, task: Task, config: Config) -> tuple[Array, ...]:
    """The packed constants; what they were made from does not stay in memory."""
    packed = kernel.pack(task, config)
    for position in kernel.packed_inputs(task, config):
        known = task.known(position)
        if known is not None:
            release_pages(known)
    return packed


def packing_key(task: Task, node: Node) -> tuple[object, ...]:
    """What packed weights depend on: operators and constants, not the shapes of one plan."""
    parts = task.op.graph.nodes if isinstance(task.op, Fused) else (node,)
    constants = tuple(
        constant_key(name, value.known)
        for name, value in zip(node.inputs, task.inputs, strict=True)
        if name is not None and value is not None and value.constant
    )
    return (tuple(part.op for part in parts), constants or node.name)


def constant_key(name: str, content: Array) -> tuple[str, object]:
    """A constant by its name; small ones, which may differ from plan to plan, by content too."""
    if content.size > EVALUATED_ELEMENTS:
        return name, None
    known = repr(content.tolist()) if content.dtype == object else content.tobytes()
    return name, (content.shape, known)
