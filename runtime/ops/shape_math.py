"""Shape arithmetic, said once: operators' inference, references and kernels all call it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, Shape, differ
from mnnpy.runtime.graph.types import Array


def normalize_axis(axis: int, rank: int) -> int:
    """Axis counted from the front. Raises ``ShapeError`` where it is outside ``[-rank, rank)``."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is out of range for rank {rank}")
    return axis + rank if axis < 0 else axis


def normalize_axes(axes: Iterable[Dim], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in the given order. Raises ``ShapeError`` on duplicates."""
    normalized = tuple(normalize_axis(int(axis), rank) for axis in axes)
    if len(set(normalized)) != len(normalized):
        raise ShapeError(f"axes {normalized} name an axis twice")
    return normalized


def broadcast_dims(a: Dim, b: Dim) -> Dim:
    """One dimension of NumPy's broadcasting; symbolic dimensions are assumed to fit."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ShapeError(f"dimensions {a} and {b} do not broadcast")
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else UNKNOWN


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's multidirectional broadcasting. Raises ``ShapeError`` where shapes do not fit."""
    rank = max(map(len, shapes), default=0)
    result: Shape = (1,) * rank
    for shape in shapes:
        padded = (1,) * (rank - len(shape)) + shape
        try:
            result = tuple(map(broadcast_dims, result, padded))
        except ShapeError:
            listed = " and ".join(map(str, shapes))
            raise ShapeError(f"shapes {listed} do not broadcast") from None
    return result


def require_broadcast_to(shape: Shape, target: Shape) -> None:
    """Raise ``ShapeError`` unless ``shape`` broadcasts to ``target`` without changing it."""
    fits = len(shape) <= len(target) and not any(
        dim != 1 and differ(dim, wanted)
        for dim, wanted in zip(reversed(shape), reversed(target), strict=False)
    )
    if not fits:
        raise ShapeError(f"shape {shape} does not broadcast to {target}")


def reduced_shape(shape: Shape, axes: Iterable[int], keepdims: bool) -> Shape:
    """Shape after reducing ``axes`` (counted from the front)."""
    axes = set(axes)
    if keepdims:
        return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in axes)


def product(dims: Iterable[Dim]) -> Dim:
    """Product of dimensions; 1 for none."""
    return math.prod(dims)


def reshaped(shape: Shape, target: Sequence[Dim], allow_zero: bool) -> Shape:
    """ONNX Reshape: 0 copies a dimension (unless ``allow_zero``), -1 takes what is left."""
    result: list[Dim] = []
    for axis, dim in enumerate(target):
        if dim == 0 and not allow_zero:
            if axis >= len(shape):
                raise ShapeError(f"target {tuple(target)} copies axis {axis} of rank {len(shape)}")
            dim = shape[axis]
        if isinstance(dim, int) and dim < -1:
            raise ShapeError(f"target {tuple(target)} has the negative dimension {dim}")
        result.append(dim)
    holes = [axis for axis, dim in enumerate(result) if dim == -1]
    if len(holes) > 1:
        raise ShapeError(f"target {tuple(target)} has more than one -1")
    total = product(shape)
    if holes:
        rest = product(dim for dim in result if dim != -1)
        if isinstance(rest, int) and isinstance(total, int) and (rest == 0 or total % rest):
            raise ShapeError(f"cannot reshape {shape} ({total} elements) to {tuple(target)}")
        result[holes[0]] = total // rest
    if differ(product(result), total):
        raise ShapeError(f"cannot reshape {shape} ({total} elements) to {tuple(target)}")
    return tuple(result)


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """NumPy's matmul rule, vectors included."""
    if not a or not b:
        raise ShapeError("MatMul needs tensors of rank 1 or more, a scalar was given")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    if differ(left[-1], right[-2]):
        raise ShapeError(f"inner dimensions differ: {a} times {b}")
    batch = broadcast_shapes(left[:-2], right[:-2])
    rows = (left[-2],) if len(a) > 1 else ()
    columns = (right[-1],) if len(b) > 1 else ()
    return (*batch, *rows, *columns)


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window over the spatial axes, every parameter explicit.

    ``begin`` and ``end`` are the padding before and after each axis; ``output`` is the number of
    window positions.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[Dim, ...]
    end: tuple[Dim, ...]
    output: Shape

    @property
    def extent(self) -> tuple[int, ...]:
        """Input elements that one window spans along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def slide_window(
    spatial: Shape,
    kernel: Sequence[Dim],
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    ceil_mode: bool = False,
) -> Window:
    """Resolve ONNX's window attributes (empty means default) against an input's spatial shape.

    Raises
    ------
    ShapeError
        Where attributes have another rank, are not positive, or the window does not fit.
    """
    rank = len(spatial)
    sizes, strides, pads, dilations = _explicit(rank, kernel, strides, pads, dilations, auto_pad)
    extent = tuple((k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True))
    begin: tuple[Dim, ...] = pads[:rank]
    end: tuple[Dim, ...] = pads[rank:]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = _same_padding(spatial, extent, strides, lower=auto_pad == "SAME_LOWER")
    elif auto_pad == "VALID":
        begin = end = (0,) * rank
    ceil = ceil_mode and not auto_pad.startswith("SAME")
    output = tuple(
        _positions(size + lo, hi, span, stride, ceil)
        for size, lo, hi, span, stride in zip(spatial, begin, end, extent, strides, strict=True)
    )
    if any(isinstance(count, int) and count < 1 for count in output) and product(spatial) != 0:
        raise ShapeError(f"a window of {extent} does not fit {spatial} padded by {begin}, {end}")
    return Window(sizes, strides, dilations, begin, end, output)


def _explicit(
    rank: int,
    kernel: Sequence[Dim],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    auto_pad: str,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, strides, pads and dilations with the defaults put in, checked."""
    if rank < 1:
        raise ShapeError("a window needs a spatial axis: inputs have the shape (n, c, *spatial)")
    sizes = tuple(int(k) for k in kernel)
    strides, dilations = tuple(strides) or (1,) * rank, tuple(dilations) or (1,) * rank
    pads = tuple(pads) or (0,) * (2 * rank)
    if not len(sizes) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ShapeError(
            f"window of kernel {sizes}, strides {strides}, dilations {dilations}, pads {pads} "
            f"does not fit {rank} spatial axes"
        )
    if min((*sizes, *strides, *dilations), default=1) < 1:
        raise ShapeError(f"kernel {sizes}, strides {strides}, dilations {dilations} must be >= 1")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ShapeError(f"auto_pad {auto_pad!r} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    return sizes, strides, pads, dilations


def _positions(limit: Dim, end: Dim, span: int, stride: int, ceil_mode: bool) -> Dim:
    """Windows over ``limit`` elements, begin padding included, and ``end`` elements of padding."""
    if not ceil_mode:
        return (limit + end - span) // stride + 1
    # ceil((limit + end - span) / stride) + 1, less those windows that would start in the end
    # padding: PyTorch and ONNX Runtime drop them.
    return -(-(limit + min(int(end) - span + stride, 0)) // stride)


def _same_padding(
    spatial: Shape, extent: Sequence[int], strides: Sequence[int], lower: bool
) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    small, large = [], []
    for size, span, stride in zip(spatial, extent, strides, strict=True):
        positions = -(-size // stride)
        total = (positions - 1) * stride + span - size
        if isinstance(total, int):
            total = max(total, 0)
        small.append(total // 2)
        large.append(total - total // 2)
    return (tuple(large), tuple(small)) if lower else (tuple(small), tuple(large))


def transposed_output(
    spatial: Shape,
    kernel: Sequence[Dim],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    output_padding: Sequence[int],
    output_shape: Sequence[int],
    auto_pad: str,
) -> Window:
    """Window of a transposed convolution; its ``output`` is the output's spatial shape.

    Raises
    ------
    ShapeError
        Where attributes have another rank, are not positive, or cut off more than there is.
    """
    rank = len(spatial)
    sizes, strides, pads, dilations = _explicit(rank, kernel, strides, pads, dilations, auto_pad)
    output_padding = tuple(output_padding) or (0,) * rank
    if len(output_padding) != rank or len(output_shape) not in (0, rank, rank + 2):
        raise ShapeError(
            f"output_padding {output_padding} and output_shape {tuple(output_shape)} "
            f"do not fit {rank} spatial axes"
        )
    extent = tuple((k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True))
    full = tuple(
        (size - 1) * stride + extra + span
        for size, stride, extra, span in zip(spatial, strides, output_padding, extent, strict=True)
    )
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    if output_shape or same:
        wanted: Shape = tuple(output_shape[-rank:]) or tuple(
            size * stride for size, stride in zip(spatial, strides, strict=True)
        )
        total = [a - b for a, b in zip(full, wanted, strict=True)]
        halves = [t // 2 for t in total]
        others = [t - h for t, h in zip(total, halves, strict=True)]
        upper = auto_pad == "SAME_UPPER"
        begin, end = (halves, others) if upper else (others, halves)
        return Window(sizes, strides, dilations, tuple(begin), tuple(end), wanted)
    begin_, end_ = pads[:rank], pads[rank:]
    output = tuple(f - lo - hi for f, lo, hi in zip(full, begin_, end_, strict=True))
    if any(isinstance(size, int) and size < 0 for size in output):
        raise ShapeError(f"pads {pads} cut more off than the output {full} has")
    return Window(sizes, strides, dilations, begin_, end_, output)


def as_ints(array: Array) -> tuple[int, ...]:
    """Elements of a small integer array (axes, sizes) as Python integers."""
    return tuple(array.reshape(-1).tolist())


def slice_length(size: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """Number of elements of ``range(size)[start:end:step]``.

    Symbolic bounds, and bounds of a symbolic size, are assumed to lie inside; UNKNOWN where that
    would make a plain number of a symbolic size, which a pass might then take for granted.
    """
    if step == 0:
        raise ShapeError("a slice cannot have step 0")
    fixed = isinstance(start, int) and isinstance(end, int)
    if fixed and isinstance(size, int):
        return len(range(*slice(start, end, step).indices(size)))
    first = _slice_bound(size, start, (0, size) if step > 0 else (-1, size - 1))
    stop = _slice_bound(size, end, (0, size) if step > 0 else (-1, size - 1))
    span = stop - first if step > 0 else first - stop
    length = (span + abs(step) - 1) // abs(step)
    return UNKNOWN if fixed and isinstance(length, int) and length != 0 else length


_UNBOUNDED = 2**31 - 1
"""Slice bounds of this size or more mean the end of the axis (ONNX: INT_MAX)."""


def _slice_bound(size: Dim, bound: Dim, limits: tuple[Dim, Dim]) -> Dim:
    if isinstance(bound, int):
        if abs(bound) >= _UNBOUNDED:
            return limits[bound > 0]
        return bound + size if bound < 0 else bound
    negative = bound.constant <= 0 and all(factor < 0 for _, factor in bound.terms)
    return bound + size if negative else bound
