"""Comparing values: how far results are from those of a side that is trusted.

The error is everywhere relative to the largest number: max|difference| / max|expected|. Per
element it would be large wherever numbers cancel to nearly zero, on which no two orders of summing
agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from mnnpy.runtime.errors import ConfigError
from mnnpy.runtime.graph.types import DTYPES, STRING, Array, DType, dtype_name

_BY_DTYPE = {
    "float64": 1e-9,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 5e-2,
    "complex128": 1e-9,
    "complex64": 1e-4,
}
"""About a thousand roundings for float32 (long sums in another order, Winograd's transforms), far
more for float64, whose functions engines approximate in their own ways, and about ten for halves,
whose sums run in float32 and are rounded between operators."""


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The largest accepted relative error of each element type.

    Integers, truth values and texts must be equal; integers of 8 bits and fewer, which come out of
    quantising, may be one off, since a tie that another order of summing breaks rounds either way.
    Floats that are narrower than 16 bits may be one step off.

    Parameters
    ----------
    given : name of an element type -> tolerance instead of the usual one.
    floats : tolerance of all floats that are not in ``given``.
    """

    given: Mapping[str, float] = field(default_factory=dict)
    floats: float | None = None

    @staticmethod
    def parsed(texts: Sequence[str]) -> Tolerances:
        """From texts such as ``1e-3`` (all floats) and ``float16=0.05``.

        Raises
        ------
        ConfigError
            Where a text is neither.
        """
        made = Tolerances()
        for text in texts:
            name, _, number = text.rpartition("=")
            try:
                tolerance = float(number)
            except ValueError:
                tolerance = -1.0
            if not tolerance >= 0 or (name and name not in DTYPES):
                raise ConfigError(f"tolerance {text!r}: write 1e-3, or one type's as float16=0.05")
            if name:
                made = replace(made, given={**made.given, name: tolerance})
            else:
                made = replace(made, floats=tolerance)
        return made

    def of(self, dtype: DType) -> float:
        """Tolerance of an element type; zero where contents must be equal."""
        name = dtype_name(dtype)
        if name in self.given:
            return self.given[name]
        if not _is_inexact(dtype):
            return 0.0
        if self.floats is not None:
            return self.floats
        if name in _BY_DTYPE:
            return _BY_DTYPE[name]
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one value is from what was expected.

    Parameters
    ----------
    absolute, relative : max|difference|, and that over max|expected|; infinite where type, shape or
        the places of NaN and infinities differ.
    fits : whether that is within the tolerance.
    verdict : ``ok``, or what is wrong, in words.
    """

    name: str
    dtype: str
    absolute: float
    relative: float
    fits: bool
    verdict: str

    def texts(self) -> tuple[str, str, str]:
        """Both errors and the verdict, for tables."""
        return f"{self.absolute:.2e}", f"{self.relative:.2e}", self.verdict


def difference(name: str, expected: Any, found: Any, tolerances: Tolerances) -> Difference:
    """Compare one value: an array, a list (sequence) or None (empty optional)."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = zip(expected, found, strict=True)
        parts = [difference(name, e, f, tolerances) for e, f in pairs]
        worst = max(parts, key=lambda part: (not part.fits, part.relative), default=None)
        return worst or Difference(name, "sequence", 0.0, 0.0, True, "ok")
    if expected is None and found is None:
        return Difference(name, "optional", 0.0, 0.0, True, "ok")
    if any(value is None or isinstance(value, list) for value in (expected, found)):
        return _misfit(name, _described(expected), _described(found))
    wanted, got = np.asarray(expected), np.asarray(found)
    if wanted.dtype != got.dtype or wanted.shape != got.shape:
        return _misfit(name, _described(wanted), _described(got))
    return _array_difference(name, wanted, got, tolerances.of(wanted.dtype))


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], tolerances: Tolerances
) -> list[Difference]:
    """One difference per expected value."""
    return [difference(name, expected[name], found[name], tolerances) for name in expected]


def _array_difference(name: str, expected: Array, found: Array, tolerance: float) -> Difference:
    dtype = expected.dtype
    if dtype == STRING or dtype.kind in "US":
        wrong = int((expected != found).sum())
        verdict = f"{wrong} of {expected.size} texts differ" if wrong else "ok"
        error = np.inf if wrong else 0.0
        return Difference(name, dtype_name(dtype), error, error, not wrong, verdict)
    absolute, relative, places = _errors(expected, found)
    fits, verdict = places is None and relative <= tolerance, "ok"
    if not fits and absolute == 1 and _is_narrow_integer(dtype) and not tolerance:
        fits, verdict = True, "ok, off by one"
    if not fits:
        verdict = places or (f"beyond {tolerance:g}" if tolerance else "not equal")
    return Difference(name, dtype_name(dtype), absolute, relative, fits, verdict)


def _errors(expected: Array, found: Array) -> tuple[float, float, str | None]:
    """Absolute and relative error, and where NaN or infinities are at different places."""
    if not _is_inexact(expected.dtype):
        wrong = expected != found
        wanted, got = (part[wrong].astype(object) for part in (expected, found))
        absolute = float(
            max((abs(int(w) - int(g)) for w, g in zip(wanted, got, strict=True)), default=0)
        )
        largest = float(np.abs(expected.astype(np.float64)).max(initial=0.0))
        return absolute, absolute / (largest or 1.0), None
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    wanted, got = expected.astype(wide), found.astype(wide)
    for what, test in (("NaN", np.isnan), ("infinity", np.isinf)):
        if (test(wanted) != test(got)).any():
            count = f"{int(test(wanted).sum())} expected, {int(test(got).sum())} found"
            return np.inf, np.inf, f"{what} at other places: {count}"
    infinite = np.isinf(wanted)
    if (wanted[infinite] != got[infinite]).any():
        return np.inf, np.inf, "infinity of another sign"
    finite = np.isfinite(wanted)
    absolute = float(np.abs(wanted[finite] - got[finite]).max(initial=0.0))
    largest = float(np.abs(wanted[finite]).max(initial=0.0))
    # Where all that is expected is zero nothing can be relative: the error itself is judged.
    return absolute, absolute / (largest or 1.0), None


def _misfit(name: str, expected: str, found: str) -> Difference:
    return Difference(name, "-", np.inf, np.inf, False, f"expected {expected}, got {found}")


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{dtype_name(value.dtype)}{value.shape}"
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__


def _is_inexact(dtype: DType) -> bool:
    """Whether numbers of the type are rounded; ``kind`` says so of NumPy's own types only."""
    return dtype.kind in "fc" or "float" in dtype.name


def _is_narrow_integer(dtype: DType) -> bool:
    return dtype.kind != "b" and dtype.itemsize == 1 and not _is_inexact(dtype)
