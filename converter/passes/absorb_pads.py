"""Take Pad into the window of the convolution or pool behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.ops.activation import Clip, HardSigmoid, Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.pooling import AveragePool, MaxPool
from mnnpy.runtime.ops.shape_math import normalize_axes
from mnnpy.runtime.ops.slicing import Pad

_Windowed: TypeAlias = Conv | AveragePool | MaxPool

_NOT_NEGATIVE = (Relu, Sigmoid, HardSigmoid)
"""Operators that give no negative numbers."""


def absorb_pads(graph: Graph) -> Graph:
    """Pad of spatial axes before Conv (zeros), AveragePool (zeros that it counts) and MaxPool
    (-inf, or zeros around numbers that are not negative): into the window's own pads.
    """
    return apply_rules(graph, _absorb)


def _absorb(subject: Subject, node: Node) -> Patch | None:
    op = node.op
    if not isinstance(op, _Windowed) or op.auto_pad not in ("NOTSET", "VALID"):
        return None
    pad = subject.producer(node.inputs[0], Pad)
    borders = None if pad is None else _borders(subject, pad)
    if pad is None or borders is None or len(node.outputs) != 1:
        return None
    rank = len(borders) // 2 - 2
    own = op.pads if op.pads and op.auto_pad == "NOTSET" else (0,) * (2 * rank)
    pads = tuple(map(sum, zip(own, _spatial(borders), strict=True)))
    absorbed = _absorbed(op, subject, pad, any(own), pads)
    if absorbed is None or any(borders[:2]) or any(borders[2 + rank : 4 + rank]):
        return None
    padded = replace(absorbed, pads=pads, auto_pad="NOTSET")
    new = replace(node, op=padded, inputs=(pad.inputs[0], *node.inputs[1:]))
    return Patch((node,), (new,))


def _borders(subject: Subject, pad: Node) -> tuple[int, ...] | None:
    """Begins, then ends of all axes; None where they are not known or something is cut off."""
    x, given = subject.tensor(pad.inputs[0]), subject.constant(pad.inputs[1])
    if x is None or given is None or not isinstance(pad.op, Pad) or pad.op.mode != "constant":
        return None
    axes: tuple[int, ...] = tuple(range(x.rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        named = subject.constant(pad.inputs[3])
        if named is None:
            return None
        axes = normalize_axes(named.reshape(-1).tolist(), x.rank)
    borders = np.zeros((2, x.rank), dtype=np.int64)
    borders[:, list(axes)] = given.reshape(2, -1)
    return None if (borders < 0).any() else tuple(borders.reshape(-1).tolist())


def _spatial(borders: tuple[int, ...]) -> tuple[int, ...]:
    half = len(borders) // 2
    return borders[2:half] + borders[half + 2 :]


def _absorbed(
    op: _Windowed, subject: Subject, pad: Node, padded: bool, pads: tuple[int, ...]
) -> _Windowed | None:
    """The operator that sees the border as the Pad makes it, None where none does."""
    border = _border(subject, pad)
    if isinstance(op, Conv):
        return op if border == 0 else None
    if op.ceil_mode:
        return None
    if isinstance(op, AveragePool):
        counted = bool(op.count_include_pad) or not padded
        return replace(op, count_include_pad=1) if counted and border == 0 else None
    if border == -np.inf:
        return op
    dilations = op.dilations or (1,) * len(op.kernel_shape)
    extent = [(k - 1) * d + 1 for k, d in zip(op.kernel_shape, dilations, strict=True)]
    reaches_inside = all(p < e for p, e in zip(pads, extent * 2, strict=True))
    dense = all(d == 1 for d in dilations) and not padded
    harmless = border == 0 and _not_negative(subject, pad.inputs[0])
    return op if dense and reaches_inside and harmless else None


def _border(subject: Subject, pad: Node) -> float | None:
    """What is padded with, None where it is not known."""
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    value = subject.constant(pad.inputs[2])
    return None if value is None else float(value.reshape(()))


def _not_negative(subject: Subject, name: str | None) -> bool:
    if subject.producer(name, _NOT_NEGATIVE) is not None:
        return True
    clip = subject.producer(name, Clip)
    low = None if clip is None or len(clip.inputs) < 2 else subject.constant(clip.inputs[1])
    return low is not None and float(low.reshape(())) >= 0
