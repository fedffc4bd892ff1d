"""Checking feeds as ONNX Runtime does: its errors, and what it takes for an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from mnnpy.compat.onnxruntime.exceptions import Fail, InvalidArgument
from mnnpy.compat.onnxruntime.model import NodeArg
from mnnpy.compat.onnxruntime.values import OrtValue
from mnnpy.converter.onnx_types import dtype_of
from mnnpy.runtime.graph.types import Array


def checked_feeds(
    feeds: Mapping[str, Any], inputs: Sequence[NodeArg], overridable: Sequence[NodeArg]
) -> dict[str, Any]:
    """Every feed as a session takes it; an optional input that is left out is None.

    Raises
    ------
    ValueError
        Where inputs are missing.
    InvalidArgument
        Where a feed is unknown, or of another type, rank or size.
    RuntimeError
        Where a feed is neither an array, a list nor an OrtValue.
    """
    fed = list(feeds.keys())
    required = [arg.name for arg in inputs if not arg.type.startswith("optional")]
    missing = [name for name in required if name not in fed]
    if missing:
        raise ValueError(f"inputs {missing} are required; fed were {fed}")
    args = {arg.name: arg for arg in (*inputs, *overridable)}
    unknown = [name for name in fed if name not in args]
    if unknown:
        raise InvalidArgument(f"there is no input {unknown[0]!r}; there are {list(args)}")
    absent = {arg.name: None for arg in inputs if arg.name not in feeds}
    return absent | {name: _checked(args[name], feed) for name, feed in feeds.items()}


def _checked(arg: NodeArg, feed: Any) -> Any:
    content = feed.content if isinstance(feed, OrtValue) else feed
    if arg.type.startswith("optional") or (arg.type.startswith("seq") and _is_sequence(content)):
        return content
    if content is None:
        raise Fail(f"input {arg.name!r} takes {arg.type}, not None")
    if isinstance(content, list) and arg.type.startswith("tensor"):
        content = _from_list(arg, content)
    if not (isinstance(content, np.ndarray) or isinstance(feed, OrtValue)):
        raise RuntimeError(f"input {arg.name!r} takes {arg.type}, not {type(content).__name__}")
    _check_tensor(arg, OrtValue(content))
    return np.char.decode(content, "utf-8") if content.dtype.kind == "S" else content


def _is_sequence(content: Any) -> bool:
    return isinstance(content, list) and all(hasattr(entry, "dtype") for entry in content)


def _from_list(arg: NodeArg, content: list[Any]) -> Array:
    """Nested lists as an array of the input's type."""
    number = onnx.TensorProto.DataType.Value(arg.type[len("tensor(") : -1].upper())
    try:
        return np.asarray(content, dtype=dtype_of(number))
    except (ValueError, TypeError, OverflowError) as error:
        raise RuntimeError(f"input {arg.name!r}: the list is no {arg.type}: {error}") from error


def _check_tensor(arg: NodeArg, value: OrtValue) -> None:
    """Raise ``InvalidArgument`` where type, rank or a size is not what is declared."""
    if value.data_type() != arg.type:
        raise InvalidArgument(f"input {arg.name!r} takes {arg.type}, not {value.data_type()}")
    if not arg.ranked:
        return
    shape = value.shape()
    if len(shape) != len(arg.shape):
        raise InvalidArgument(
            f"input {arg.name!r} has the rank {len(arg.shape)} ({arg.shape}), "
            f"the feed {len(shape)} ({shape})"
        )
    wrong = [
        f"axis {axis} is {size} and must be {dim}"
        for axis, (size, dim) in enumerate(zip(shape, arg.shape, strict=True))
        if isinstance(dim, int) and size != dim
    ]
    if wrong:
        raise InvalidArgument(
            f"input {arg.name!r} has the shape {arg.shape}, the feed {shape}: {'; '.join(wrong)}"
        )
