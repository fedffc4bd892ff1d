"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mnnpy.runtime.errors import FeedError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import TensorType
from mnnpy.sampling import NamedShapes

Model: TypeAlias = Annotated[
    Path, typer.Argument(help="A `.mnnpy` or `.onnx` file.", show_default=False)
]
Shapes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        "-s",
        help="Shape of an input, `name=1,3,224,224`, or `1,3,224,224` where there is one input. "
        "A symbolic batch is 1 unless given.",
        show_default=False,
    ),
]
Backend: TypeAlias = Annotated[
    str, typer.Option("--backend", "-b", help="numpy, numba, cuda, auto, or an installed one.")
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option("--threads", "-t", min=1, help="Most threads to use.", show_default=False),
]
PlanFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--plan", help="A plan file of `mnnpy search` to use.", show_default=False),
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Seed of random inputs.")]

TOLERANCE_HELP = (
    "Accepted relative error: `1e-3`, or of one type as `float16=0.05`; may be repeated."
)


def given_shapes(graph: Graph, given: Sequence[str] | None) -> list[NamedShapes]:
    """Sets of shapes: the n-th shape of each input makes the n-th set; one given once is in all.

    Raises
    ------
    FeedError
        Where a shape is of no input, or no numbers.
    """
    tensors = {name: t for name, t in graph.inputs.items() if isinstance(t, TensorType)}
    listed: dict[str, list[tuple[int, ...]]] = {}
    for text in given or ():
        name, shape = _parse_shape(text, tensors)
        listed.setdefault(name, []).append(shape)
    count = max(map(len, listed.values()), default=1)
    for name, shapes in listed.items():
        if len(shapes) not in (1, count):
            raise FeedError(f"--shape: {len(shapes)} shapes of {name!r}, {count} of another input")
    return [
        {name: shapes[turn if len(shapes) > 1 else 0] for name, shapes in listed.items()}
        for turn in range(count)
    ]


def shapes_for(graph: Graph, given: Sequence[str] | None) -> NamedShapes:
    """A concrete shape for every tensor input.

    Raises
    ------
    FeedError
        Where a given shape is of no input or no numbers, or an axis beyond the batch needs one.
    """
    tensors = {name: t for name, t in graph.inputs.items() if isinstance(t, TensorType)}
    named = dict(_parse_shape(text, tensors) for text in given or ())
    return {n: named[n] if n in named else _declared(n, t) for n, t in tensors.items()}


def split_named(text: str, names: Mapping[str, object]) -> tuple[str, str]:
    """``name=value`` apart; a value alone belongs to the only input.

    Raises
    ------
    FeedError
        Where the name is unknown, or left out though there are several inputs.
    """
    name, separator, value = text.rpartition("=")
    listed = ", ".join(names)
    if not separator:
        if len(names) != 1:
            raise FeedError(f"{text!r}: say for which input, as NAME={text}; inputs are {listed}")
        return next(iter(names)), text
    if name not in names:
        raise FeedError(f"{text!r}: there is no input {name!r}; inputs are {listed}")
    return name, value


def _parse_shape(text: str, tensors: Mapping[str, TensorType]) -> tuple[str, tuple[int, ...]]:
    name, dims = split_named(text, tensors)
    try:
        shape = tuple(int(dim) for dim in dims.replace("x", ",").split(",") if dim)
    except ValueError:
        raise FeedError(f"--shape {text!r}: a shape is numbers such as 1,3,224,224") from None
    declared = tensors[name]
    fits = len(shape) == declared.rank and all(
        size == dim or not isinstance(dim, int)
        for size, dim in zip(shape, declared.shape, strict=True)
    )
    if not fits or min(shape, default=0) < 0:
        raise FeedError(f"--shape {text!r}: input {name!r} takes {declared}")
    return name, shape


def _declared(name: str, tensor: TensorType) -> tuple[int, ...]:
    shape = [
        1 if axis == 0 and not isinstance(dim, int) else dim
        for axis, dim in enumerate(tensor.shape)
    ]
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    if len(sizes) != len(shape):
        example = ",".join(str(dim) if isinstance(dim, int) else "N" for dim in shape)
        raise FeedError(f"input {name!r} takes {tensor}: give its size as --shape {name}={example}")
    return sizes
