"""Signal processing: Fourier transforms, windows and mel filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN, Dim, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import DTYPES, Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import normalize_axis


@dataclass(frozen=True, slots=True)
class DFT(Op):
    """Discrete Fourier transform along ``axis``, ONNX DFT-20.

    x : (..., 1) real or (..., 2) complex, length : scalar (default the axis' size), axis : scalar
    (default -2) -> (..., 2). ``onesided`` gives the first length // 2 + 1 frequencies or, with
    ``inverse``, takes them and gives a real signal (..., 1).
    """

    inverse: int = 0
    onesided: int = 0

    shape_inputs: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(
        self, x: Value, length: Value | None = None, axis: Value | None = None
    ) -> tuple[Type, ...]:
        require_parts(x)
        to_real = self.inverse and self.onesided
        parts = 1 if to_real else 2
        if axis is not None and axis.known is None:
            return (TensorType(x.dtype, (*(UNKNOWN,) * (x.rank - 1), parts)),)
        place = signal_axis(-2 if axis is None else int(axis.ints()[0]), x.rank)
        size: Dim = (x.shape[place] - 1) * 2 if to_real else x.shape[place]
        if length is not None:
            size = UNKNOWN if length.known is None else length.ints()[0]
        if self.onesided and not self.inverse:
            size = size // 2 + 1
        shape = (*x.shape[:place], size, *x.shape[place + 1 : -1], parts)
        return (TensorType(x.dtype, shape),)

    def reference(
        self, xp: ArrayModule, x: Array, length: Array | None = None, axis: Array | None = None
    ) -> tuple[Array, ...]:
        place = signal_axis(-2 if axis is None else int(axis.reshape(())), x.ndim)
        points = None if length is None else int(length.reshape(()))
        signal = as_complex(x)
        if self.inverse and self.onesided:
            real = xp.fft.irfft(signal, points, axis=place)
            return (real[..., None].astype(x.dtype),)
        transform = xp.fft.ifft if self.inverse else xp.fft.fft
        spectrum = transform(signal, points, axis=place)
        if self.onesided:
            kept = spectrum.shape[place] // 2 + 1
            spectrum = spectrum[(*[slice(None)] * place, slice(kept))]
        return (as_pairs(xp, spectrum).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class STFT(Op):
    """Fourier transform of windowed frames, ONNX STFT-17.

    x : (n, length, 1) real or (n, length, 2) complex, step : scalar, window : (frame,), frame :
    scalar -> (n, frames, frequencies, 2), frequencies being frame // 2 + 1 where ``onesided``.
    A real signal may also be (n, length), as torch exports it and ONNX Runtime takes it.
    """

    onesided: int = 1

    shape_inputs: ClassVar[tuple[int, ...]] = (1, 3)

    def infer(
        self, x: Value, step: Value, window: Value | None = None, frame: Value | None = None
    ) -> tuple[Type, ...]:
        if x.rank != 2:
            require_parts(x)
        if x.rank not in (2, 3):
            raise ShapeError(f"a signal of shape {x.shape}: need (n, length, 1 or 2)")
        n, length = x.shape[:2]
        size: Dim = length if window is None else window.shape[0]
        if frame is not None:
            size = UNKNOWN if frame.known is None else frame.ints()[0]
        frames: Dim = UNKNOWN
        if step.known is not None:
            frames = (length - size) // step.ints()[0] + 1
        return (TensorType(x.dtype, (n, frames, size // 2 + 1 if self.onesided else size, 2)),)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        step: Array,
        window: Array | None = None,
        frame: Array | None = None,
    ) -> tuple[Array, ...]:
        stride = int(step.reshape(()))
        size = x.shape[1] if window is None else window.shape[0]
        size = size if frame is None else int(frame.reshape(()))
        starts = xp.arange((x.shape[1] - size) // stride + 1)[:, None] * stride
        signal = widen(x) if x.ndim == 2 else as_complex(x)
        frames = signal[:, starts + xp.arange(size)]
        if window is not None:
            frames = frames * widen(window)
        spectrum = xp.fft.fft(frames, axis=2)
        if self.onesided:
            spectrum = spectrum[:, :, : size // 2 + 1]
        return (as_pairs(xp, spectrum).astype(x.dtype),)


@dataclass(frozen=True, slots=True)
class CosineWindow(Op):
    """Base of windows: size scalar -> (size,), a sum of cosines over one period.

    The period is ``size`` points where ``periodic``, else one less, so that both ends are equal.
    """

    periodic: int = 1
    output_dtype: str = "float32"

    shape_inputs: ClassVar[tuple[int, ...]] = (0,)
    terms: ClassVar[tuple[float, ...]] = ()
    """Factors of the cosines of 0, 1, 2, ... periods."""

    def infer(self, size: Value) -> tuple[Type, ...]:
        length = UNKNOWN if size.known is None else size.ints()[0]
        return (TensorType(DTYPES[self.output_dtype], (length,)),)

    def reference(self, xp: ArrayModule, size: Array) -> tuple[Array, ...]:
        points = int(size.reshape(()))
        period = points if self.periodic else max(points - 1, 1)
        angle = 2 * np.pi * xp.arange(points, dtype=np.float64) / period
        window = sum(factor * xp.cos(k * angle) for k, factor in enumerate(self.terms))
        return (window.astype(DTYPES[self.output_dtype]),)


class HannWindow(CosineWindow):
    """Hann's window, ONNX HannWindow-17."""

    __slots__ = ()
    terms = (0.5, -0.5)


class HammingWindow(CosineWindow):
    """Hamming's window with the factors 25/46 and 21/46, ONNX HammingWindow-17."""

    __slots__ = ()
    terms = (25 / 46, -21 / 46)


class BlackmanWindow(CosineWindow):
    """Blackman's window, ONNX BlackmanWindow-17."""

    __slots__ = ()
    terms = (0.42, -0.5, 0.08)


@dataclass(frozen=True, slots=True)
class MelWeightMatrix(Op):
    """Triangular filters over frequencies, evenly spaced in mel, ONNX MelWeightMatrix-17.

    Five scalars: number of filters, DFT length, sample rate, lowest and highest frequency in hertz
    -> (DFT length // 2 + 1, filters).
    """

    output_dtype: str = "float32"

    shape_inputs: ClassVar[tuple[int, ...]] = (0, 1)

    def infer(
        self, filters: Value, dft_length: Value, rate: Value, lowest: Value, highest: Value
    ) -> tuple[Type, ...]:
        columns = UNKNOWN if filters.known is None else filters.ints()[0]
        rows = UNKNOWN if dft_length.known is None else dft_length.ints()[0] // 2 + 1
        return (TensorType(DTYPES[self.output_dtype], (rows, columns)),)

    def reference(
        self,
        xp: ArrayModule,
        filters: Array,
        dft_length: Array,
        rate: Array,
        lowest: Array,
        highest: Array,
    ) -> tuple[Array, ...]:
        count, length = int(filters.reshape(())), int(dft_length.reshape(()))
        low, high = (_mel(float(edge.reshape(()))) for edge in (lowest, highest))
        # ONNX divides the range by the number of edges, so that the last filter ends below it.
        mels = low + (high - low) / (count + 2) * xp.arange(count + 2)
        hertz = 700 * (10 ** (mels / 2595) - 1)
        edges = xp.floor((length + 1) * hertz / int(rate.reshape(())))
        left, peak, right = edges[:-2], edges[1:-1], edges[2:]
        bins = xp.arange(length // 2 + 1)[:, None]
        rising = (bins - left) / xp.maximum(peak - left, 1)
        falling = (right - bins) / xp.maximum(right - peak, 1)
        weights = xp.clip(xp.where(bins < peak, rising, falling), 0, None)
        return (xp.where(bins == peak, 1, weights).astype(DTYPES[self.output_dtype]),)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def signal_axis(axis: int, rank: int) -> int:
    """Axis counted from the front; the last one, which holds real and imaginary part, is none."""
    place = normalize_axis(axis, rank)
    if place == rank - 1:
        raise ShapeError(f"axis {axis} of rank {rank} holds real and imaginary parts")
    return place


def require_parts(x: Value) -> None:
    """Raise ``ShapeError`` unless the last axis may hold a real or a complex number."""
    if x.rank < 2 or (differ(x.shape[-1], 1) and differ(x.shape[-1], 2)):
        raise ShapeError(f"the last axis of {x.shape} must have size 1 (real) or 2 (complex)")


def as_complex(x: Array) -> Array:
    """(..., 1) or (..., 2) -> (...), real or complex."""
    x = widen(x)
    return x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def as_pairs(xp: ArrayModule, x: Array) -> Array:
    """Complex (...) -> (..., 2)."""
    return xp.stack([x.real, x.imag], axis=-1)


OPERATORS: tuple[type[Op], ...] = (
    *(DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix),
)
