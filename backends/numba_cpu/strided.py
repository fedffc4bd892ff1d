"""Stacks of matrices in plain tensors: permuted or broadcast, read where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.ir import Function, Value


@dataclass(frozen=True, slots=True)
class Strided:
    """A plain tensor seen through a permutation: sizes, and floats from one index to the next."""

    shape: tuple[int, ...]
    pitches: tuple[int, ...]

    @staticmethod
    def of(stored: Sequence[int], permutation: Sequence[int] | None = None) -> Strided:
        """A tensor that is stored row-major in this shape."""
        axes = range(len(stored)) if permutation is None else permutation
        pitches = [math.prod(stored[axis + 1 :]) for axis in range(len(stored))]
        return Strided(tuple(stored[axis] for axis in axes), tuple(pitches[axis] for axis in axes))

    def broadcast(self, shape: Sequence[int]) -> Strided:
        """Seen as a tensor of this shape, of at least as many axes."""
        missing = len(shape) - len(self.shape)
        pitches = (0 if dim == 1 else p for dim, p in zip(self.shape, self.pitches, strict=True))
        return Strided(tuple(shape), (*(0,) * missing, *pitches))

    def matrix(self, f: Function, base: Value, index: Value) -> Value:
        """Address of the matrix (last two axes) with this number."""
        for dim, pitch in zip(self.shape[-3::-1], self.pitches[-3::-1], strict=True):
            index, here = f.divide(index, dim)
            base = f.at(base, f.mul(here, pitch))
        return base

    @property
    def row(self) -> int:
        """Floats from one row of a matrix to the next."""
        return self.pitches[-2]
