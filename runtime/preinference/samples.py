"""Whether a graph treats the samples of a batch alone, so that a batch can run part by part.

The graph is inferred twice, with all samples and with those of one part, and both results are
walked side by side. Every value turns out to hold samples along its first axis, or to be the same
whatever the batch, or to follow from the number of samples (a shape). A rule per operator vouches
that sample i of its output depends on sample i of its inputs and on nothing of other samples; what
no rule vouches for mixes samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from mnnpy.runtime.graph.dims import UndecidedError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import STRING, Array, TensorType, Value
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.blocks import DepthToSpace, SpaceToDepth
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.elementwise import Elementwise
from mnnpy.runtime.ops.generation import ConstantOfShape
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.normalization import (
    LRN,
    BatchNormalization,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    LpNormalization,
    MeanVarianceNormalization,
    RMSNormalization,
)
from mnnpy.runtime.ops.pooling import AveragePool, GlobalPool, LpPool, MaxPool
from mnnpy.runtime.ops.reduction import ArgReduce, Reduce, SoftmaxLike, TopK
from mnnpy.runtime.ops.resize import Resize
from mnnpy.runtime.ops.shape_math import as_ints, normalize_axes, normalize_axis
from mnnpy.runtime.ops.shaping import Flatten, Reshape, Squeeze, Transpose, Unsqueeze
from mnnpy.runtime.ops.slicing import Concat, Expand, Pad, Slice, Split, pad_borders


class Role(Enum):
    """What a value is to the samples of a batch."""

    SAMPLES = "one slice of the first axis per sample"
    SHARED = "the same whatever the batch"
    SIZE = "follows from the number of samples, as shapes do"


@dataclass(frozen=True, slots=True)
class Reading:
    """An operator with its inputs, as inferred for the whole batch, and their roles."""

    op: Any
    inputs: tuple[Value | None, ...]
    roles: tuple[Role | None, ...]
    outputs: int
    rank: int

    def value(self, index: int) -> Value:
        value = self.inputs[index]
        assert value is not None
        return value

    def known(self, index: int) -> Array | None:
        """Content of an input, None where it is absent. Raises ``UndecidedError`` where unknown."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is not None and not value.constant:
            raise UndecidedError(f"input {index} is not known")
        return None if value is None else value.known

    def only_first_has_samples(self, besides: tuple[Role, ...] = (Role.SHARED,)) -> bool:
        """Whether the first input holds samples, and all others have one of these roles."""
        first, *others = self.roles
        return first is Role.SAMPLES and all(role is None or role in besides for role in others)

    def spreads(self, index: int, rank: int) -> bool:
        """Whether an input, broadcast to this rank, gives every sample what is the sample's."""
        role, value = self.roles[index], self.inputs[index]
        if role is None or value is None:
            return True
        if role is Role.SAMPLES:
            return value.rank == rank
        return role is Role.SHARED and (value.rank < rank or value.shape[0] == 1)


Rule: TypeAlias = Callable[[Reading], bool]
"""Whether an operator, so read, acts on each sample alone. Shapes are compared besides."""


def reason_against_parts(
    graph: Graph, whole: Mapping[str, Value], part: Mapping[str, Value]
) -> str | None:
    """Why the graph's outputs are not its outputs for parts of the batch, one after another.

    Parameters
    ----------
    whole, part : every value of the graph as inferred for all samples, and for those of one part.

    Returns
    -------
    The reason in words; None where a batch may run part by part.
    """
    found = _Walk(graph, whole, part)
    for name in graph.outputs:
        if found.roles.get(name) is not Role.SAMPLES:
            return found.reasons.get(name, f"output {name!r} has no axis of samples")
    return None


class _Walk:
    """Roles of all values; of those without one the reason."""

    def __init__(self, graph: Graph, whole: Mapping[str, Value], part: Mapping[str, Value]) -> None:
        self.whole, self.part = whole, part
        self.roles: dict[str, Role] = dict.fromkeys(graph.constants, Role.SHARED)
        self.reasons: dict[str, str] = {}
        sizes = {_sizes(whole[name], part[name]) for name in graph.inputs}
        self.count = sizes.pop() if len(sizes) == 1 else None
        for name in graph.inputs:
            if self.count is None:
                self.reasons[name] = "the inputs' first axes are not one number of samples"
            else:
                self.roles[name] = Role.SAMPLES
        for node in graph.nodes:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        blamed = next((self.reasons[name] for name in node.reads if name in self.reasons), None)
        reading = None if blamed else self._reading(node)
        for name in node.outputs:
            role = self._known_role(name)
            if role is None and reading is not None:
                role = self._computed_role(name, reading)
            if role is None:
                self.reasons[name] = blamed or f"{node} may mix samples"
            else:
                self.roles[name] = role

    def _reading(self, node: Node) -> Reading | None:
        inputs = tuple(None if name is None else self.whole[name] for name in node.inputs)
        first = self.whole[node.outputs[0]].type
        typed = all(value is None or value.type is not None for value in inputs)
        if not isinstance(first, TensorType) or not typed:
            return None
        roles = tuple(None if name is None else self.roles[name] for name in node.inputs)
        return Reading(node.op, inputs, roles, len(node.outputs), first.rank)

    def _known_role(self, name: str) -> Role | None:
        """The role of a value whose content was evaluated in both graphs."""
        whole, part = self.whole[name], self.part[name]
        if whole.known is None or part.known is None or not (whole.constant and part.constant):
            return None
        if _equal(whole.known, part.known):
            return Role.SHARED
        if self.count is not None and self.count == _sizes(whole, part):
            copies = np.concatenate([part.known] * self.count)
            if _equal(whole.known, copies):
                return Role.SAMPLES
        return Role.SIZE

    def _computed_role(self, name: str, reading: Reading) -> Role | None:
        whole, part = self.whole[name], self.part[name]
        if set(reading.roles) <= {Role.SHARED, None}:
            same = whole.type == part.type and whole.type is not None
            return Role.SHARED if same and reading.op.deterministic and reading.op.bounded else None
        if self.count is None or _sizes(whole, part) != self.count:
            return None
        rule = _rule(type(reading.op))
        try:
            return Role.SAMPLES if rule is not None and rule(reading) else None
        except UndecidedError:
            return None


def _sizes(whole: Value, part: Value) -> int | None:
    """Parts that the whole consists of by its shape; None where only other axes tell them apart."""
    a, b = whole.type, part.type
    if not (isinstance(a, TensorType) and isinstance(b, TensorType) and a.static and b.static):
        return None
    if a.dtype != b.dtype or a.dtype == STRING or a.rank != b.rank or a.rank == 0:
        return None
    (many, *rest), (few, *rest_of_part) = map(int, a.shape), map(int, b.shape)
    if rest != rest_of_part or few == 0 or many % few or many == few:
        return None
    return many // few


def _equal(a: Array, b: Array) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())


def _keeps_first_axis(axes: Callable[[Reading], Iterable[int]]) -> Rule:
    """The rule of operators that work along axes, counted from the front, and not the first."""
    return lambda reading: reading.only_first_has_samples() and 0 not in axes(reading)


def _axis(reading: Reading) -> Sequence[int]:
    return (normalize_axis(reading.op.axis, reading.value(0).rank),)


def _axes_from(reading: Reading) -> Sequence[int]:
    rank = reading.value(0).rank
    return range(normalize_axis(reading.op.axis, rank), rank)


def _axes(reading: Reading) -> Sequence[int]:
    """Axes that a softmax or a permutation says."""
    return tuple(reading.op.axes(reading.value(0).rank))


def _reduced_axes(reading: Reading) -> Sequence[int]:
    given = reading.known(1)
    axes = () if given is None else as_ints(given)
    return tuple(reading.op.axes(axes, reading.value(0).rank))


def _cut_axes(reading: Reading) -> Sequence[int]:
    given = reading.known(3)
    starts, rank = reading.value(1), reading.value(0).rank
    return normalize_axes(range(int(starts.shape[0])) if given is None else as_ints(given), rank)


def _padded_axes(reading: Reading) -> Sequence[int]:
    pads, axes = reading.known(1), reading.known(3)
    assert pads is not None
    given = None if axes is None else as_ints(axes)
    borders = pad_borders(as_ints(pads), given, reading.value(0).rank)
    return [axis for axis, before, after in borders if before or after]


def _is_alone(reading: Reading) -> bool:
    return reading.only_first_has_samples()


def _is_broadcast(reading: Reading) -> bool:
    return all(reading.spreads(index, reading.rank) for index in range(len(reading.inputs)))


def _is_reshaped(reading: Reading) -> bool:
    """Elements stay in order: with equal first axes every sample keeps its own."""
    return reading.only_first_has_samples((Role.SHARED, Role.SIZE))


def _is_expanded(reading: Reading) -> bool:
    return reading.spreads(0, reading.rank)


def _is_pooled(reading: Reading) -> bool:
    """Places of maxima (the second output) are counted over the whole batch."""
    return reading.only_first_has_samples() and reading.outputs == 1


def _is_normalized(reading: Reading) -> bool:
    return reading.only_first_has_samples() and not reading.op.training_mode


def _is_product(reading: Reading) -> bool:
    a, b = reading.value(0), reading.value(1)
    if reading.roles == (Role.SAMPLES, Role.SHARED) and b.rank <= 2:
        return a.rank >= 2
    rank = max(a.rank, b.rank)
    return rank >= 3 and reading.spreads(0, rank) and reading.spreads(1, rank)


def _is_gemm(reading: Reading) -> bool:
    kept = not reading.op.transA and reading.roles[:2] == (Role.SAMPLES, Role.SHARED)
    return kept and (len(reading.roles) < 3 or reading.spreads(2, 2))


def _is_attention(reading: Reading) -> bool:
    """All but the mask have a sample per slice; the mask is broadcast to one matrix per head."""
    others = (role for index, role in enumerate(reading.roles) if index != 3)
    masked = len(reading.roles) <= 3 or reading.spreads(3, 4)
    return masked and all(role in (Role.SAMPLES, None) for role in others)


def _is_gathered(reading: Reading) -> bool:
    if reading.roles == (Role.SHARED, Role.SAMPLES):
        return _axis(reading) == (0,)
    return reading.only_first_has_samples() and 0 not in _axis(reading)


def _is_joined(reading: Reading) -> bool:
    return set(reading.roles) == {Role.SAMPLES} and 0 not in _axis(reading)


def _is_permuted(reading: Reading) -> bool:
    return reading.only_first_has_samples() and _axes(reading)[0] == 0


def _is_resized(reading: Reading) -> bool:
    """Sizes may follow from the batch; its axis must be none of those that change."""
    scales, sizes = reading.known(2), reading.known(3)
    if reading.op.keep_aspect_ratio_policy != "stretch" or Role.SIZE in reading.roles[:3]:
        return False
    if not reading.only_first_has_samples((Role.SHARED, Role.SIZE)):
        return False
    resized = reading.op.resized_axes(
        reading.value(0).shape,
        None,
        None if scales is None else scales.reshape(-1).tolist(),
        None if sizes is None else as_ints(sizes),
    )
    return all(entry.axis for entry in resized)


_RULES: dict[type[Op], Rule] = {
    Elementwise: _is_broadcast,
    Expand: _is_expanded,
    ConstantOfShape: lambda reading: True,
    **dict.fromkeys((Reshape, Flatten, Squeeze, Unsqueeze), _is_reshaped),
    **dict.fromkeys((Conv, ConvTranspose, AveragePool, LpPool, GlobalPool), _is_alone),
    **dict.fromkeys((InstanceNormalization, GroupNormalization, LRN), _is_alone),
    **dict.fromkeys((DepthToSpace, SpaceToDepth, Cast), _is_alone),
    MaxPool: _is_pooled,
    BatchNormalization: _is_normalized,
    MatMul: _is_product,
    Gemm: _is_gemm,
    Attention: _is_attention,
    Gather: _is_gathered,
    Concat: _is_joined,
    Transpose: _is_permuted,
    Resize: _is_resized,
    SoftmaxLike: _keeps_first_axis(_axes),
    Reduce: _keeps_first_axis(_reduced_axes),
    **dict.fromkeys((ArgReduce, TopK, LpNormalization, Split), _keeps_first_axis(_axis)),
    **dict.fromkeys((LayerNormalization, RMSNormalization), _keeps_first_axis(_axes_from)),
    MeanVarianceNormalization: _keeps_first_axis(
        lambda reading: normalize_axes(reading.op.axes, reading.value(0).rank)
    ),
    Slice: _keeps_first_axis(_cut_axes),
    Pad: _keeps_first_axis(_padded_axes),
}
"""Operators, or bases of operators, that act on each sample alone, and when they do."""


def _rule(operator: type[Op]) -> Rule | None:
    """The rule of a class, else of the nearest base that has one."""
    return next((_RULES[base] for base in operator.__mro__ if base in _RULES), None)
