"""Inputs to try a model on: sizes for symbolic dimensions, and random content that is valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.feeds import feeds_that_set_shapes
from mnnpy.runtime.graph.dims import Dim
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.types import BOOL, STRING, Array, DType, TensorType
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.indexing import Gather

NamedShapes = dict[str, tuple[int, ...]]
_BATCHES, _LENGTHS, _PICTURES = (1, 3), (8, 13), (64, 96)
_WORDS = ("", "a", "word", "Straße")


def shape_sets(
    graph: Graph, given: Mapping[str, tuple[int, ...]] | None = None
) -> list[NamedShapes]:
    """Shapes of all tensor inputs worth trying: one set, or two where dimensions are symbolic.

    A symbol gets one size wherever it stands: 1 and 3 where it is a first axis, 64 and 96 as the
    size of a picture, 8 and 13 elsewhere.

    Parameters
    ----------
    given : shapes of some inputs, which say the sizes of their symbols.
    """
    given = given or {}
    inputs = {name: t for name, t in graph.inputs.items() if isinstance(t, TensorType)}
    sizes: dict[str, tuple[int, ...]] = {}
    for name, shape in given.items():
        for dim, size in zip(inputs[name].shape, shape, strict=True):
            if not isinstance(dim, int) and len(dim.terms) == 1:
                symbol, factor = dim.terms[0]
                sizes.setdefault(symbol, ((size - dim.constant) // factor,) * 2)
    for tensor in inputs.values():
        for axis, dim in enumerate(tensor.shape):
            usual = (
                _BATCHES if axis == 0 else _PICTURES if tensor.rank == 4 and axis > 1 else _LENGTHS
            )
            for symbol, _ in () if isinstance(dim, int) else dim.terms:
                sizes.setdefault(symbol, usual)
    found: list[NamedShapes] = []
    for turn in range(2):
        chosen = {symbol: turns[turn] for symbol, turns in sizes.items()}
        shapes = {name: _shape(tensor, chosen) for name, tensor in inputs.items()} | dict(given)
        if shapes not in found:
            found.append(shapes)
    return found


def random_feeds(graph: Graph, shapes: NamedShapes, seed: int) -> dict[str, Any]:
    """Random content for every input, of both signs and, as far as the graph tells, valid.

    Floats are standard normal. Integers that index a table stay inside it; integers of 16 bits and
    fewer cover their type; other integers are 0 or 1 (masks, kinds, positions), or 1 or 2 where
    they decide shapes.

    Raises
    ------
    FeedError
        Where an input is no tensor, or one of which not even the rank is known.
    """
    rng = np.random.default_rng(seed)
    limits, sizes = index_limits(graph), feeds_that_set_shapes(graph)
    feeds = {}
    for name, declared in graph.inputs.items():
        if not isinstance(declared, TensorType):
            raise FeedError(
                f"input {name!r} is declared as {declared}: only tensors of known rank can be made "
                "at random, give it as a file"
            )
        limit = limits.get(name)
        if limit is None:
            low, high = _usual_range(declared.dtype, name in sizes)
        else:
            low, high = 0, max(limit - 1, 0)
        feeds[name] = _random(rng, shapes[name], declared.dtype, low, high)
    return feeds


def index_limits(graph: Graph) -> dict[str, int]:
    """Input name -> size of the smallest table that it indexes, directly or through views."""
    values = infer_values(graph)
    origins = {name: name for name in graph.inputs}
    limits: dict[str, int] = {}
    for node in graph.nodes:
        first = node.inputs[0] if node.inputs else None
        if (node.op.view or isinstance(node.op, Cast)) and first in origins:
            origins[node.outputs[0]] = origins[first]
        if isinstance(node.op, Gather) and len(node.reads) == 2 and node.reads[1] in origins:
            table = values[node.reads[0]].type
            size = table.shape[node.op.axis] if isinstance(table, TensorType) else None
            if isinstance(size, int):
                name = origins[node.reads[1]]
                limits[name] = min(size, limits.get(name, size))
    return limits


def _shape(tensor: TensorType, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(max(_size(dim, sizes), 0) for dim in tensor.shape)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    return dim.constant + sum(factor * sizes[symbol] for symbol, factor in dim.terms)


def _usual_range(dtype: DType, sets_shapes: bool) -> tuple[int, int]:
    if sets_shapes:
        return 1, 2
    if dtype.itemsize > 2 or dtype == BOOL or not _is_integer(dtype):
        return 0, 1
    limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(limits.min), int(limits.max)


def _random(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, low: int, high: int
) -> Array:
    if dtype == STRING:
        return rng.choice(np.array(_WORDS, dtype=object), shape)
    if dtype == BOOL or _is_integer(dtype):
        return np.asarray(rng.integers(low, high, shape, endpoint=True)).astype(dtype)
    return np.asarray(rng.standard_normal(shape, dtype=np.float32)).astype(dtype)


def _is_integer(dtype: DType) -> bool:
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))
