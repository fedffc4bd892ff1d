"""Checking feeds: what is given to ``run`` against what the model declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.graph.dims import SymbolicDim, differ
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import (
    STRING,
    Array,
    DType,
    SequenceType,
    TensorType,
    Type,
    Value,
    dtype_name,
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A model input or output as users see it; symbolic dimensions are their names."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    @staticmethod
    def of(name: str, value_type: Type | None) -> TensorInfo:
        if not isinstance(value_type, TensorType):
            return TensorInfo(name, "unknown" if value_type is None else str(value_type), None)
        shape = tuple(str(d) if isinstance(d, SymbolicDim) else d for d in value_type.shape)
        return TensorInfo(name, dtype_name(value_type.dtype), shape)


def named_feeds(inputs: Mapping[str, Type], feeds: Any) -> dict[str, Any]:
    """Feeds by input name, from a dict, a list in order, or the array of the only input.

    Raises
    ------
    FeedError
        Where inputs are missing or unknown; names them.
    """
    if isinstance(feeds, Mapping):
        given = dict(feeds)
    elif isinstance(feeds, list | tuple) and not _is_value_of_only_input(inputs, feeds):
        if len(feeds) != len(inputs):
            raise FeedError(f"{len(feeds)} feeds for {len(inputs)} inputs ({_listed(inputs)})")
        given = dict(zip(inputs, feeds, strict=True))
    elif len(inputs) == 1:
        given = {next(iter(inputs)): feeds}
    else:
        raise FeedError(
            f"one array was given, the model has {len(inputs)} inputs ({_listed(inputs)}): "
            "give a list in this order or a dict by name"
        )
    missing = [name for name in inputs if name not in given]
    unknown = [str(name) for name in given if name not in inputs]
    if missing or unknown:
        parts = [f"missing: {', '.join(map(repr, missing))}"] * bool(missing)
        parts += [f"unknown: {', '.join(map(repr, unknown))}"] * bool(unknown)
        raise FeedError(f"{'; '.join(parts)}; the model's inputs are {_listed(inputs)}")
    return given


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _is_value_of_only_input(inputs: Mapping[str, Type], feeds: Sequence[Any]) -> bool:
    """Whether a list is the value itself: nested numbers, or a sequence for a sequence input."""
    if len(inputs) != 1:
        return False
    (only,) = inputs.values()
    if isinstance(only, SequenceType):
        return not (len(feeds) == 1 and isinstance(feeds[0], list))
    return not any(hasattr(entry, "__array__") or hasattr(entry, "shape") for entry in feeds)


def checked_feeds(graph: Graph, feeds: Any) -> dict[str, Any]:
    """Every feed as an array that fits its input.

    Raises
    ------
    FeedError
        Names the input, what was expected and what came.
    """
    given = named_feeds(graph.inputs, feeds)
    return {name: _checked(name, given[name], graph.inputs[name]) for name in graph.inputs}


def _checked(name: str, feed: Any, expected: Type) -> Any:
    if not isinstance(expected, TensorType):
        return feed
    try:
        array = _as_array(feed, expected)
    except Exception as error:  # What a feed's own __array__ raises may be anything.
        raise FeedError(
            f"input {name!r} takes {expected}, got a {type(feed).__name__} that is no such array: "
            f"{error}"
        ) from error
    if array.dtype != expected.dtype:
        raise FeedError(
            f"input {name!r} takes {expected}, got {dtype_name(array.dtype)}{array.shape}: "
            f"convert it with .astype({dtype_name(expected.dtype)!r})"
        )
    if array.ndim != expected.rank:
        raise FeedError(
            f"input {name!r} takes {expected} of rank {expected.rank}, "
            f"got shape {array.shape} of rank {array.ndim}"
        )
    for axis, (size, dim) in enumerate(zip(array.shape, expected.shape, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise FeedError(
                f"input {name!r} takes {expected}, got shape {array.shape}: "
                f"axis {axis} must be {dim}, not {size}"
            )
    return array


def _as_array(feed: Any, expected: TensorType) -> Array:
    if type(feed) is np.ndarray and feed.dtype == expected.dtype and expected.dtype != STRING:
        return feed
    if hasattr(feed, "__cuda_array_interface__") and hasattr(feed, "get"):
        feed = feed.get()
    if expected.dtype == STRING:
        array = np.asarray(feed)
        return array.astype(object) if array.dtype.kind in "US" else array
    array = np.asarray(feed)
    if isinstance(feed, list | tuple | int | float | bool):
        if array.size and array.dtype.kind in "fc" and expected.dtype.kind in "iub":
            raise ValueError(f"{array.dtype} numbers would lose their fractions")
        return np.asarray(feed, dtype=expected.dtype)
    native = array.dtype.newbyteorder("=") == expected.dtype
    return array.astype(expected.dtype, copy=False) if native else array


@dataclass(frozen=True, slots=True)
class FamiliarFeeds:
    """Element types and shapes of arrays that passed the checks: others like them pass as well."""

    arrays: Mapping[str, tuple[DType, tuple[int, ...]]]

    @staticmethod
    def of(feeds: Mapping[str, Any]) -> FamiliarFeeds:
        """Nothing is familiar where a feed is no array."""
        arrays = all(isinstance(feed, np.ndarray) for feed in feeds.values())
        types = {name: (feed.dtype, feed.shape) for name, feed in feeds.items()} if arrays else {}
        return FamiliarFeeds(types)

    def named(self, feeds: Any) -> Mapping[str, Any] | None:
        """The feeds by name, where they are arrays like these."""
        if type(feeds) is np.ndarray and len(self.arrays) == 1:
            feeds = {next(iter(self.arrays)): feeds}
        if type(feeds) is not dict or not feeds or len(feeds) != len(self.arrays):
            return None
        for name, feed in feeds.items():
            if type(feed) is not np.ndarray or self.arrays.get(name) != (feed.dtype, feed.shape):
                return None
        return feeds


def feeds_that_set_shapes(graph: Graph) -> frozenset[str]:
    """Graph inputs whose content reaches an input of an operator that sets shapes by content."""
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        wanted.update(
            name
            for position in node.op.shape_inputs
            if position < len(node.inputs) and (name := node.inputs[position]) is not None
        )
        if wanted.intersection(node.outputs):
            wanted.update(node.reads)
    return frozenset(name for name in graph.inputs if name in wanted)


def concrete_inputs(
    graph: Graph, shapes: Mapping[str, Sequence[int]] | Sequence[int] | None
) -> dict[str, Value]:
    """Input values of these shapes. Raises ``FeedError`` where a dimension stays symbolic."""
    if shapes is None:
        shapes = {}
    if not isinstance(shapes, Mapping):
        if len(graph.inputs) != 1:
            raise FeedError(f"one shape for {len(graph.inputs)} inputs: give shapes by name")
        shapes = {next(iter(graph.inputs)): shapes}
    unknown = [name for name in shapes if name not in graph.inputs]
    if unknown:
        raise FeedError(f"unknown inputs {unknown}; the model's inputs are {list(graph.inputs)}")
    return {
        name: Value(_concrete(name, declared, shapes.get(name)))
        for name, declared in graph.inputs.items()
    }


def _concrete(name: str, declared: Type, given: object) -> Type:
    """The declared type with the shape that is given for it, if any."""
    if not isinstance(declared, TensorType):
        return declared
    if not isinstance(given, Sequence | None):
        raise FeedError(f"input {name!r} takes a shape such as (1, 3), not {given!r}")
    shape = declared.shape if given is None else tuple(map(_dim, given))
    if len(shape) != declared.rank or any(map(differ, shape, declared.shape)):
        raise FeedError(f"input {name!r} takes {declared}, not shape {shape}")
    if any(not isinstance(dim, int) or dim < 0 for dim in shape):
        raise FeedError(f"input {name!r} has shape {shape}: give a number for every axis")
    return TensorType(declared.dtype, shape)


def _dim(given: Any) -> Any:
    """NumPy's integers as Python's."""
    return int(given) if isinstance(given, np.integer) else given
