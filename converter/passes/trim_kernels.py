"""Cut off what of a convolution's kernel reads nothing but padding, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.rewrite import Patch, Subject, apply_rules
from mnnpy.runtime.graph.types import TensorType
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.shape_math import Window


def trim_kernels(graph: Graph) -> Graph:
    """Conv with constant weights over inputs of known size.

    A kernel of 3x3 whose taps lie further apart than a picture is wide is one of 1x1: pyramids of
    dilated convolutions (DeepLab's) end in such.
    """
    return apply_rules(graph, _trim)


def _trim(subject: Subject, node: Node) -> Patch | None:
    if not isinstance(node.op, Conv) or node.inputs[1] is None:
        return None
    x, weights = subject.tensor(node.inputs[0]), subject.constant(node.inputs[1])
    if x is None or weights is None:
        return None
    sizes = [size for size in x.shape[2:] if isinstance(size, int)]
    if len(sizes) < x.rank - 2:
        return None
    window = node.op.window(x, TensorType(weights.dtype, weights.shape))
    kept = [_reach(window, axis, size) for axis, size in enumerate(sizes)]
    if [len(taps) for taps in kept] == list(window.kernel):
        return None
    axes = list(zip(kept, window.kernel, window.dilations, strict=True))
    begins = [b - t.start * d for b, (t, _, d) in zip(window.begin, axes, strict=True)]
    ends = [e - (k - t.stop) * d for e, (t, k, d) in zip(window.end, axes, strict=True)]
    op = replace(
        node.op,
        auto_pad="NOTSET",
        pads=tuple(int(pad) for pad in (*begins, *ends)),
        dilations=tuple(d if len(t) > 1 else 1 for t, _, d in axes),
    )
    name = subject.fresh(f"{node.inputs[1]}_trimmed")
    content = weights[(..., *(slice(t.start, t.stop) for t in kept))]
    trimmed = replace(node, op=op, inputs=(node.inputs[0], name, *node.inputs[2:]))
    return Patch((node,), (trimmed,), {name: content})


def _reach(window: Window, axis: int, size: int) -> range:
    """Taps from the first to the last that meets the input, and those that no padding is cut for.

    Pads must not become negative.
    """
    begin, end, count = (
        int(numbers[axis]) for numbers in (window.begin, window.end, window.kernel)
    )
    dilation = window.dilations[axis]
    met = list(_met(window, axis, size))
    if not met:
        return range(count)
    first = min(met[0], begin // dilation)
    behind = min(count - 1 - met[-1], end // dilation)
    return range(first, count - behind)


def _met(window: Window, axis: int, size: int) -> Iterator[int]:
    stride, begin, output = window.strides[axis], window.begin[axis], window.output[axis]
    for tap in range(window.kernel[axis]):
        first = tap * window.dilations[axis] - begin
        places = range(first, first + stride * output, stride)
        if any(0 <= place < size for place in places):
            yield tap
