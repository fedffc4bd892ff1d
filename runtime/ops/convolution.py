"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as cartesian
from math import prod

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import Window, slide_window, transposed_output


@dataclass(frozen=True, slots=True)
class Conv(Op):
    """Convolution over any number of spatial axes, ONNX Conv-22.

    x : (n, c, *spatial), w : (k, c / group, *kernel), b : (k,) or absent -> (n, k, *output).
    Empty ``strides``, ``pads`` and ``dilations`` mean ones, zeros and ones.
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    auto_pad: str = "NOTSET"

    def window(self, x: TensorType, w: TensorType) -> Window:
        """The window over the input's spatial axes, every parameter explicit."""
        kernel = w.shape[2:]
        return slide_window(
            x.shape[2:], kernel, self.strides, self.pads, self.dilations, self.auto_pad
        )

    def infer(self, x: Value, w: Value, b: Value | None = None) -> tuple[Type, ...]:
        require_same_dtype(x, w)
        if x.rank < 3 or x.rank != w.rank:
            raise ShapeError(
                f"input of rank {x.rank} and weights of rank {w.rank}: need equal, 3 up"
            )
        if differ(x.shape[1], w.shape[1] * self.group):
            raise ShapeError(
                f"input has {x.shape[1]} channels, weights of shape {w.shape} "
                f"with group {self.group} take {w.shape[1] * self.group}"
            )
        if differ(w.shape[0] % self.group, 0):
            raise ShapeError(f"{w.shape[0]} output channels do not divide into {self.group} groups")
        _require_bias(b, w.shape[0])
        output = self.window(x.tensor, w.tensor).output
        return (TensorType(x.dtype, (x.shape[0], w.shape[0], *output)),)

    def reference(
        self, xp: ArrayModule, x: Array, w: Array, b: Array | None = None
    ) -> tuple[Array, ...]:
        dtype, x, w = x.dtype, widen(x), widen(w)
        window = slide_window(
            x.shape[2:], w.shape[2:], self.strides, self.pads, self.dilations, self.auto_pad
        )
        padding = [(0, 0), (0, 0), *zip(window.begin, window.end, strict=True)]
        padded = xp.pad(x, padding)
        n, k, inner = x.shape[0], w.shape[0], w.shape[1]
        size = prod(int(d) for d in window.output)
        y = xp.zeros((n, self.group, k // self.group, size), dtype=x.dtype)
        for tap in cartesian(*map(range, window.kernel)):
            seen = padded[(..., *tap_slices(window, tap))]
            columns = seen.reshape(n, self.group, inner, size)
            rows = w[(..., *tap)].reshape(1, self.group, k // self.group, inner)
            y += xp.matmul(rows, columns)
        y = y.reshape(n, k, *window.output)
        if b is not None:
            y = y + b.reshape(-1, *(1,) * len(window.output))
        return (y.astype(dtype, copy=False),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        w, y = inputs[1], outputs[0]
        assert w is not None and isinstance(y, TensorType)
        return y.size * prod(int(d) for d in w.shape[1:])


def _require_bias(b: Value | None, channels: Dim) -> None:
    if b is not None and (b.rank != 1 or differ(b.shape[0], channels)):
        raise ShapeError(f"bias of shape {b.shape} for {channels} output channels")


def tap_slices(window: Window, tap: Sequence[int]) -> tuple[slice, ...]:
    """Slices of the padded input that one kernel tap multiplies, one per spatial axis."""
    return tuple(
        slice(t * d, t * d + max((int(count) - 1) * stride + 1, 0), stride)
        for t, d, stride, count in zip(
            tap, window.dilations, window.strides, window.output, strict=True
        )
    )


@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """Transposed convolution, ONNX ConvTranspose-22.

    x : (n, c, *spatial), w : (c, k / group, *kernel), b : (k,) or absent -> (n, k, *output).
    """

    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    group: int = 1
    auto_pad: str = "NOTSET"

    def window(self, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
        """Window whose ``output`` is this operator's output size."""
        return transposed_output(
            spatial,
            kernel,
            self.strides,
            self.pads,
            self.dilations,
            self.output_padding,
            self.output_shape,
            self.auto_pad,
        )

    def infer(self, x: Value, w: Value, b: Value | None = None) -> tuple[Type, ...]:
        require_same_dtype(x, w)
        if x.rank < 3 or x.rank != w.rank:
            raise ShapeError(
                f"input of rank {x.rank} and weights of rank {w.rank}: need equal, 3 up"
            )
        if differ(x.shape[1], w.shape[0]):
            raise ShapeError(f"input has {x.shape[1]} channels, weights of shape {w.shape}")
        if differ(w.shape[0] % self.group, 0):
            raise ShapeError(f"{w.shape[0]} input channels do not divide into {self.group} groups")
        _require_bias(b, w.shape[1] * self.group)
        window = self.window(x.shape[2:], w.shape[2:])  # type: ignore[arg-type]
        return (TensorType(x.dtype, (x.shape[0], w.shape[1] * self.group, *window.output)),)

    def reference(
        self, xp: ArrayModule, x: Array, w: Array, b: Array | None = None
    ) -> tuple[Array, ...]:
        dtype, x, w = x.dtype, widen(x), widen(w)
        window = self.window(x.shape[2:], w.shape[2:])
        n, k = x.shape[0], w.shape[1] * self.group
        size = prod(x.shape[2:])
        full = tuple(
            max((i - 1) * s + e, int(o) + int(lo) + max(int(hi), 0))
            for i, s, e, o, lo, hi in zip(
                x.shape[2:],
                window.strides,
                window.extent,
                window.output,
                window.begin,
                window.end,
                strict=True,
            )
        )
        y = xp.zeros((n, k, *full), dtype=x.dtype)
        inner = x.shape[1] // self.group
        columns = x.reshape(n, self.group, inner, size)
        for tap in cartesian(*map(range, window.kernel)):
            rows = w[(..., *tap)].reshape(self.group, inner, k // self.group).swapaxes(1, 2)
            part = xp.matmul(rows[None], columns).reshape(n, k, *x.shape[2:])
            places = tuple(
                slice(t * d, t * d + (i - 1) * s + 1, s)
                for t, d, s, i in zip(
                    tap, window.dilations, window.strides, x.shape[2:], strict=True
                )
            )
            y[(..., *places)] += part
        crop = tuple(
            slice(int(lo), int(lo) + int(o))
            for lo, o in zip(window.begin, window.output, strict=True)
        )
        y = y[(..., *crop)]
        if b is not None:
            y = y + b.reshape(-1, *(1,) * len(crop))
        return (y.astype(dtype, copy=False),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        x, w = inputs[0], inputs[1]
        assert x is not None and w is not None
        return x.tensor.size * prod(int(d) for d in w.shape[1:])


OPERATORS: tuple[type[Op], ...] = (Conv, ConvTranspose)
