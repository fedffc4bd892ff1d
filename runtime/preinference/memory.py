"""Memory planning: lifetimes, sharing, and one offset per value in an arena per memory.

Sharing comes first: views lie in their source, elementwise results take over an input that nobody
reads again, pieces of a concatenation are produced where the whole will lie. What remains are
blocks with a size and a lifetime, placed best fit, largest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnnpy.runtime.errors import PlanError
from mnnpy.runtime.graph.types import TensorType
from mnnpy.runtime.layouts import PLAIN, Layout
from mnnpy.runtime.preinference.plan import MemoryPlan, Slot

ALIGNMENT = 64
EFFORT = 10_000
"""Blocks placed in search of a lower peak: what keeps planning of large graphs fast."""

_ADDRESSABLE = 2**62


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """What memory planning sees of a step.

    Parameters
    ----------
    reads : input names by position, None where absent, constant or an object.
    writes : output names by position, None where absent or an object.
    inplace : input positions that output 0 may overwrite.
    views : per output its element offset in input 0, where outputs are views of it.
    concatenates : byte offset per input position in output 0, where inputs can be its pieces.
    """

    reads: tuple[str | None, ...]
    writes: tuple[str | None, ...]
    memory: str
    workspace_nbytes: int = 0
    inplace: tuple[int, ...] = ()
    views: tuple[int, ...] | None = None
    concatenates: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Block:
    """Bytes that several values share: ``members`` with their offsets, ``live`` those of them that
    a step may still read, and the ``end`` of what they cover.
    """

    memory: str
    nbytes: int
    first: int
    last: int
    end: int = 0
    members: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    offset: int = -1


def plan_memory(
    steps: Sequence[MemoryStep],
    tensors: Mapping[str, tuple[TensorType, Layout]],
    inputs: Sequence[tuple[str, str]],
    outputs: Sequence[str],
) -> tuple[MemoryPlan, list[tuple[tuple[int, int], ...]]]:
    """Place every value.

    Parameters
    ----------
    tensors : value name -> type and physical layout, for everything that needs memory.
    inputs : (name, memory) of values that are there before the first step.
    outputs : values that must survive the last step.

    Returns
    -------
    The memory plan and, per step, the (output, input) pairs that share bytes on purpose.

    Raises
    ------
    PlanError
        Where the values' bytes do not fit into 64-bit offsets.
    """
    sharing = _Sharing(steps, tensors, outputs)
    for name, memory in inputs:
        if name in tensors:
            sharing.new_block(name, memory, 0)
    aliases = [sharing.take(index, step) for index, step in enumerate(steps)]
    blocks = sharing.blocks()
    scratch = [
        _Block(step.memory, _aligned(step.workspace_nbytes), index, index)
        if step.workspace_nbytes
        else None
        for index, step in enumerate(steps)
    ]
    placed = [*blocks, *(block for block in scratch if block is not None)]
    total = sum(block.nbytes for block in placed)
    if total > _ADDRESSABLE:
        raise PlanError(f"the plan's values take {total} bytes: more than can be addressed")
    memories = sorted({step.memory for step in steps} | {block.memory for block in placed})
    arenas, bounds = {}, {}
    for memory in memories:
        mine = [block for block in placed if block.memory == memory]
        bounds[memory] = _lower_bound(mine, len(steps))
        arenas[memory] = _place(mine, bounds[memory])
    slots = {
        name: Slot(
            block.memory, block.offset + offset, sharing.nbytes[name], block.first, block.last
        )
        for block in blocks
        for name, offset in block.members.items()
    }
    workspaces = tuple(
        None if b is None else Slot(b.memory, b.offset, b.nbytes, b.first, b.last) for b in scratch
    )
    layouts = {name: layout for name, (_, layout) in tensors.items() if name in slots}
    return MemoryPlan(arenas, slots, layouts, workspaces, bounds), aliases


class _Sharing:
    """Groups values into blocks while walking the steps in order."""

    def __init__(
        self,
        steps: Sequence[MemoryStep],
        tensors: Mapping[str, tuple[TensorType, Layout]],
        outputs: Sequence[str],
    ) -> None:
        self.tensors = tensors
        self.nbytes = {name: layout.nbytes(tensor) for name, (tensor, layout) in tensors.items()}
        self.last_use: dict[str, int] = {}
        for index, step in enumerate(steps):
            for name in step.reads:
                if name is not None:
                    self.last_use[name] = index
        for name in outputs:
            self.last_use[name] = len(steps)
        self.block_of: dict[str, _Block] = {}

    def blocks(self) -> list[_Block]:
        unique = {id(block): block for block in self.block_of.values()}
        return list(unique.values())

    def new_block(self, name: str, memory: str, step: int) -> None:
        last = max(self.last_use.get(name, step), step)
        nbytes = self.nbytes[name]
        block = _Block(memory, _aligned(nbytes), step, last, nbytes, {name: 0}, {name: 0})
        self.block_of[name] = block

    def take(self, index: int, step: MemoryStep) -> tuple[tuple[int, int], ...]:
        """Give the step's outputs their blocks; returns deliberate (output, input) aliases."""
        aliases: list[tuple[int, int]] = []
        for position, name in enumerate(step.writes):
            if name is None:
                continue
            if step.views is not None and self._view(step, position, name, index):
                aliases.append((position, 0))
            elif position == 0 and (source := self._dying_input(step, index, name)) is not None:
                block = self.block_of[source]
                self._join(name, block, block.members[source], index)
            else:
                self.new_block(name, step.memory, index)
                if position == 0 and step.concatenates is not None:
                    aliases += [(0, piece) for piece in self._adopt_pieces(step, name)]
        return tuple(aliases)

    def _join(self, name: str, block: _Block, offset: int, index: int) -> None:
        block.members[name] = block.live[name] = offset
        block.end = max(block.end, offset + self.nbytes[name])
        block.last = max(block.last, self.last_use.get(name, index), index)
        self.block_of[name] = block

    def _view(self, step: MemoryStep, position: int, name: str, index: int) -> bool:
        source = step.reads[0]
        assert step.views is not None
        if source is None or source not in self.block_of or not self._plain(source, name):
            return False
        block = self.block_of[source]
        if block.memory != step.memory:
            return False
        itemsize = self.tensors[name][0].dtype.itemsize
        self._join(name, block, block.members[source] + step.views[position] * itemsize, index)
        return True

    def _dying_input(self, step: MemoryStep, index: int, name: str) -> str | None:
        """An input that output 0 may overwrite: as large, with bytes that nobody reads again."""
        for position in step.inplace:
            source = step.reads[position]
            if source is None or source not in self.block_of or step.reads.count(source) > 1:
                continue
            block = self.block_of[source]
            fits = block.memory == step.memory and self.nbytes[source] == self.nbytes[name]
            if fits and self.last_use[source] <= index and self._alone(source, index):
                return source
        return None

    def _alone(self, name: str, index: int) -> bool:
        """Whether no other value in the bytes of ``name`` is read at this step or later."""
        block = self.block_of[name]
        last = self.last_use
        block.live = {other: at for other, at in block.live.items() if last.get(other, -1) >= index}
        start = block.members[name]
        end = start + self.nbytes[name]
        return not any(
            at < end and start < at + self.nbytes[other]
            for other, at in block.live.items()
            if other != name
        )

    def _adopt_pieces(self, step: MemoryStep, name: str) -> Iterator[int]:
        """Move whole blocks of concatenated inputs into the output's block."""
        assert step.concatenates is not None
        whole = self.block_of[name]
        for position, start in enumerate(step.concatenates):
            piece = step.reads[position]
            if piece is None or piece not in self.block_of:
                continue
            if self.tensors[piece][1] != self.tensors[name][1]:
                continue
            block = self.block_of[piece]
            fills = block.members[piece] == 0 and block.end == self.nbytes[piece]
            if block is whole or not fills or block.memory != whole.memory:
                continue
            if step.reads.count(piece) > 1:
                continue
            whole.first = min(whole.first, block.first)
            whole.last = max(whole.last, block.last)
            for member, offset in block.members.items():
                whole.members[member] = start + offset
                self.block_of[member] = whole
            whole.live.update((member, start + offset) for member, offset in block.live.items())
            yield position

    def _plain(self, *names: str) -> bool:
        return all(self.tensors[name][1] == PLAIN for name in names)


def _aligned(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


def _lower_bound(blocks: Sequence[_Block], count: int) -> int:
    """Most bytes live at one step."""
    change = np.zeros(count + 2, dtype=np.int64)
    for block in blocks:
        change[block.first] += block.nbytes
        change[block.last + 1] -= block.nbytes
    return int(np.cumsum(change).max(initial=0))


def _place(blocks: Sequence[_Block], bound: int) -> int:
    """Give every block its offset; returns the peak of the best order that was tried.

    Blocks that stick out above the lower bound come first in the next attempt, until none does or
    ``EFFORT`` is spent.
    """
    orders = (
        sorted(blocks, key=lambda b: (-b.nbytes, b.first)),
        sorted(blocks, key=lambda b: (b.first - b.last, -b.nbytes, b.first)),
        sorted(blocks, key=lambda b: (b.first, -b.nbytes)),
        sorted(blocks, key=lambda b: (-b.nbytes * (b.last - b.first + 1), b.first)),
    )
    attempts = max(1, EFFORT // (len(orders) * max(1, len(blocks))))
    best: tuple[int, list[tuple[_Block, int]]] | None = None
    for order in orders:
        for _ in range(attempts):
            if best is not None and best[0] <= bound:
                break
            offsets = _best_fit(order)
            ends = [o + b.nbytes for o, b in zip(offsets, order, strict=True)]
            peak = max(ends, default=0)
            if best is None or peak < best[0]:
                best = peak, list(zip(order, offsets, strict=True))
            out = [block for block, end in zip(order, ends, strict=True) if end > bound]
            held = [block for block, end in zip(order, ends, strict=True) if end <= bound]
            order = [*out, *held]
    assert best is not None
    for block, offset in best[1]:
        block.offset = offset
    return best[0]


def _best_fit(order: Sequence[_Block]) -> list[int]:
    """Offsets, each in the tightest gap between blocks placed before that live at the same time."""
    count = len(order)
    first = np.array([block.first for block in order], dtype=np.int64)
    last = np.array([block.last for block in order], dtype=np.int64)
    starts = np.zeros(count, dtype=np.int64)
    ends = np.zeros(count, dtype=np.int64)
    for index, block in enumerate(order):
        together = (first[:index] <= block.last) & (last[:index] >= block.first)
        offset = _tightest_gap(starts[:index][together], ends[:index][together], block.nbytes)
        starts[index], ends[index] = offset, offset + block.nbytes
    return starts.tolist()


def _tightest_gap(starts: NDArray[np.int64], ends: NDArray[np.int64], nbytes: int) -> int:
    if not len(starts):
        return 0
    by_start = np.argsort(starts, kind="stable")
    starts, ends = starts[by_start], np.maximum.accumulate(ends[by_start])
    gap_starts = np.concatenate(([0], ends[:-1]))
    gaps = starts - gap_starts
    fitting = np.flatnonzero(gaps >= nbytes)
    if len(fitting):
        return int(gap_starts[fitting[np.argmin(gaps[fitting])]])
    return int(ends[-1])
