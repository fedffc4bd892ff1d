"""Feeds for a run: from files, or from a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnnpy.cli.options import split_named
from mnnpy.cli.tensor_files import read_arrays
from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import Array, TensorType


@dataclass(frozen=True, slots=True)
class Picture:
    """How a photo becomes an input: ``(pixel - mean) * scale`` with pixels from 0 to 255.

    Parameters
    ----------
    size : (height, width), or None for the input's own.
    mean, scale : one number, or one per channel.
    layout : ``"nchw"`` or ``"nhwc"``.
    """

    path: Path
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    layout: str


def feeds_from_files(graph: Graph, given: Sequence[str]) -> dict[str, Any]:
    """Feeds by input name from ``name=file`` or ``file`` texts.

    An ``.npz`` names what it holds; another file without a name is the next input's.
    """
    feeds: dict[str, Any] = {}
    for text in given:
        named = "=" in text and not Path(text).exists()
        name, path = split_named(text, graph.inputs) if named else (None, text)
        for stored, array in read_arrays(Path(path)).items():
            feeds[_input_for(graph, feeds, name, stored, path)] = array
    return feeds


def _input_for(
    graph: Graph, feeds: Mapping[str, Any], name: str | None, stored: str | None, path: str
) -> str:
    if name is not None:
        return name
    if stored in graph.inputs:
        return str(stored)
    free = [name for name in graph.inputs if name not in feeds]
    listed = ", ".join(graph.inputs) or "none"
    if not free:
        raise FeedError(f"{path}: every input has a file already; the model's inputs are {listed}")
    if stored is None or len(graph.inputs) == 1:
        return free[0]
    raise FeedError(f"{path}: {stored!r} is no input of the model; its inputs are {listed}")


def refuse_shapes(shape: Sequence[str] | None) -> None:
    """Raise ``FeedError`` where shapes are given beside inputs, which have shapes of their own."""
    if shape:
        raise FeedError("--shape is for random inputs: leave it out where inputs are given")


def picture_feed(graph: Graph, picture: Picture) -> dict[str, Array]:
    """A photo as the batch of one that the model's picture input takes.

    Raises
    ------
    FeedError
        Where the model has no such input, or the size is known neither from it nor given.
    """
    name, tensor = _picture_input(graph)
    dims = tensor.shape
    channels, size = (dims[1], dims[2:]) if picture.layout == "nchw" else (dims[3], dims[1:3])
    height, width = picture.size or size
    if not isinstance(height, int) or not isinstance(width, int):
        raise FeedError(f"input {name!r} takes {tensor}: give the picture's size as --size HxW")
    if channels not in (1, 3) and isinstance(channels, int):
        raise FeedError(
            f"input {name!r} takes {tensor}: {channels} channels in layout {picture.layout}, "
            "a picture has 1 or 3; perhaps --layout is the other one"
        )
    pixels = _pixels(picture.path, (height, width), "L" if channels == 1 else "RGB")
    scaled = (pixels - np.array(picture.mean)) * np.array(picture.scale)
    if tensor.dtype.kind in "iu":
        scaled = np.rint(scaled)
    batch = scaled.astype(tensor.dtype)[None]
    return {name: batch.transpose(0, 3, 1, 2) if picture.layout == "nchw" else batch}


def _picture_input(graph: Graph) -> tuple[str, TensorType]:
    for name, declared in graph.inputs.items():
        if isinstance(declared, TensorType) and declared.rank == 4:
            return name, declared
    raise FeedError("--image: the model has no input of four axes that could be a picture")


def _pixels(path: Path, size: tuple[int, int], mode: str) -> Array:
    """Pixels (height, width, channels) of a photo, resized with an antialiased bilinear filter."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise FeedError("--image needs Pillow: pip install 'mnnpy[image]'") from None
    try:
        with Image.open(path) as photo:
            resized = photo.convert(mode).resize(size[::-1], Image.Resampling.BILINEAR)
    except UnidentifiedImageError:
        raise FeedError(f"{path}: no picture that Pillow knows") from None
    return np.asarray(resized, dtype=np.float64).reshape(*size, len(mode))
