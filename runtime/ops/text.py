"""Operators on strings, which live on the host as arrays of ``str`` objects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import UNKNOWN
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    BOOL,
    FLOAT32,
    INT64,
    STRING,
    Array,
    ArrayModule,
    TensorType,
    Type,
    Value,
)
from mnnpy.runtime.ops.shape_math import broadcast_shapes


def string_array(texts: Sequence[str], shape: tuple[int, ...]) -> Array:
    """Strings as an array of objects."""
    array = np.empty(len(texts), dtype=STRING)
    array[:] = texts
    return array.reshape(shape)


@dataclass(frozen=True, slots=True)
class StringNormalizer(Op):
    """Without stop words, in upper or lower case, ONNX StringNormalizer-10.

    x : (c,) or (1, c) -> the same without the stop words; one empty string where none is left.
    """

    case_change_action: str = "NONE"
    is_case_sensitive: int = 0
    stopwords: tuple[str, ...] = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank not in (1, 2):
            raise ShapeError(f"strings of shape {x.shape}: need (c,) or (1, c)")
        return (TensorType(STRING, (*(1,) * (x.rank - 1), UNKNOWN)),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        words = x.reshape(-1).tolist()
        if self.is_case_sensitive:
            kept = [word for word in words if word not in self.stopwords]
        else:
            stopped = {word.lower() for word in self.stopwords}
            kept = [word for word in words if word.lower() not in stopped]
        if self.case_change_action != "NONE":
            change = str.lower if self.case_change_action == "LOWER" else str.upper
            kept = [change(word) for word in kept]
        kept = kept or [""]
        return (string_array(kept, (*(1,) * (x.ndim - 1), len(kept))),)


class StringConcat(Op):
    """Strings one after the other, broadcast, ONNX StringConcat-20."""

    __slots__ = ()

    def infer(self, x: Value, y: Value) -> tuple[Type, ...]:
        return (TensorType(STRING, broadcast_shapes(x.shape, y.shape)),)

    def reference(self, xp: ArrayModule, x: Array, y: Array) -> tuple[Array, ...]:
        return (np.asarray(np.add(x, y), dtype=STRING),)


@dataclass(frozen=True, slots=True)
class StringSplit(Op):
    """Pieces of every string and their number, ONNX StringSplit-20.

    x : any shape -> (*x, most pieces), padded with empty strings, and int64 (*x).
    """

    delimiter: str = ""
    maxsplit: int = -1

    def infer(self, x: Value) -> tuple[Type, ...]:
        return TensorType(STRING, (*x.shape, UNKNOWN)), TensorType(INT64, x.shape)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        rows = [self._pieces(text) for text in x.reshape(-1)]
        width = max(map(len, rows), default=0)
        padded = [piece for row in rows for piece in (*row, *[""] * (width - len(row)))]
        counts = np.array([len(row) for row in rows], dtype=np.int64).reshape(x.shape)
        return string_array(padded, (*x.shape, width)), xp.asarray(counts)

    def _pieces(self, text: str) -> list[str]:
        if self.delimiter:
            return text.split(self.delimiter, self.maxsplit)
        return text.strip().split(None, self.maxsplit)


_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


def compile_re2(pattern: str) -> re.Pattern[str]:
    """RE2's syntax as Python's: POSIX classes, ASCII-only escapes. Raises ``re.error``."""
    translated = re.sub(
        r"\[:(\w+):\]", lambda found: _POSIX_CLASSES.get(found[1], found[0]), pattern
    )
    return re.compile(translated.replace(r"\z", r"\Z"), re.ASCII)


@dataclass(frozen=True, slots=True)
class RegexFullMatch(Op):
    """Whether a regular expression (RE2) matches the whole string, ONNX RegexFullMatch-20."""

    pattern: str = ""

    def infer(self, x: Value) -> tuple[Type, ...]:
        return (TensorType(BOOL, x.shape),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        expression = compile_re2(self.pattern)
        matches = [expression.fullmatch(text) is not None for text in x.reshape(-1)]
        return (xp.asarray(np.array(matches, dtype=np.bool_).reshape(x.shape)),)


@dataclass(frozen=True, slots=True)
class TfIdfVectorizer(Op):
    """Weighted counts of n-grams with skips, ONNX TfIdfVectorizer-9.

    x : (c,) or (n, c) -> (size,) or (n, size). ``pool`` holds the 1-grams, then the 2-grams, ...;
    ``ngram_counts`` says where each of these begins, ``ngram_indexes`` where a gram is counted.
    """

    max_gram_length: int
    max_skip_count: int
    min_gram_length: int
    mode: str
    ngram_counts: tuple[int, ...]
    ngram_indexes: tuple[int, ...]
    pool: tuple[int | str, ...]
    weights: tuple[float, ...] = ()

    def infer(self, x: Value) -> tuple[Type, ...]:
        if x.rank not in (1, 2):
            raise ShapeError(f"tokens of shape {x.shape}: need (c,) or (n, c)")
        bounds = [0, *self.ngram_counts, len(self.pool)]
        if bounds != sorted(bounds) or min(self.ngram_indexes, default=-1) < 0:
            raise ShapeError(
                f"ngram_counts {self.ngram_counts} and ngram_indexes {self.ngram_indexes} "
                f"for a pool of {len(self.pool)}"
            )
        return (TensorType(FLOAT32, (*x.shape[:-1], max(self.ngram_indexes) + 1)),)

    def reference(self, xp: ArrayModule, x: Array) -> tuple[Array, ...]:
        grams = {gram: number for number, gram in enumerate(self._pooled())}
        rows = x.reshape(-1, x.shape[-1]).tolist()
        y = np.zeros((len(rows), max(self.ngram_indexes) + 1), dtype=np.float32)
        for row, counted in zip(rows, y, strict=True):
            counts = np.zeros(len(grams), dtype=np.float32)
            for gram in self._grams(row):
                if gram in grams:
                    counts[grams[gram]] += 1
            if self.mode == "IDF":
                counts = np.minimum(counts, 1)
            if self.mode != "TF" and self.weights:
                counts = counts * np.array(self.weights, dtype=np.float32)
            np.add.at(counted, np.array(self.ngram_indexes), counts)
        return (xp.asarray(y.reshape(*x.shape[:-1], y.shape[1])),)

    def _pooled(self) -> Iterator[tuple[int | str, ...]]:
        """Every n-gram of the pool, in order."""
        ends = (*self.ngram_counts[1:], len(self.pool))
        for length, (start, end) in enumerate(zip(self.ngram_counts, ends, strict=True), 1):
            for place in range(start, end, length):
                yield self.pool[place : place + length]

    def _grams(self, row: Sequence[int | str]) -> Iterator[tuple[int | str, ...]]:
        """Every n-gram of a row, under every allowed skip."""
        for length in range(self.min_gram_length, self.max_gram_length + 1):
            skips = min(self.max_skip_count, len(row)) if length > 1 else 0
            for step in range(1, skips + 2):
                span = (length - 1) * step
                for start in range(len(row) - span):
                    yield tuple(row[start : start + span + 1 : step])


OPERATORS: tuple[type[Op], ...] = (
    *(StringNormalizer, StringConcat, StringSplit, RegexFullMatch, TfIdfVectorizer),
)
