"""Einstein summation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim, Shape
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import widen
from mnnpy.runtime.ops.shape_math import broadcast_dims, product


@dataclass(frozen=True, slots=True)
class Einsum(Op):
    """Sum of products over the labels that the output does not have, ONNX Einsum-28."""

    equation: str

    def terms(self, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Labels of each input's axes and of the output's.

        The axes of an ellipsis are labelled "1", "2", ... from the last one back.
        """
        inputs, arrow, output = self.equation.replace(" ", "").partition("->")
        texts = inputs.split(",")
        if len(texts) != len(ranks):
            raise ShapeError(f"equation {self.equation!r} for {len(ranks)} inputs")
        terms = [_labels(text, rank) for text, rank in zip(texts, ranks, strict=True)]
        hidden = max((label for term in terms for label in term if label.isdigit()), default="0")
        if arrow:
            letters = len(output.replace("...", ""))
            return terms, _labels(output, letters + ("..." in output) * int(hidden))
        counts = Counter(inputs.replace("...", "").replace(",", ""))
        once = "".join(sorted(letter for letter, count in counts.items() if count == 1))
        return terms, _labels("..." + once, len(once) + int(hidden))

    def sizes(self, shapes: Sequence[Shape]) -> tuple[dict[str, Dim], tuple[str, ...]]:
        """Size of every label, and the output's labels. Raises ``ShapeError`` where they differ."""
        terms, output = self.terms([len(shape) for shape in shapes])
        sizes: dict[str, Dim] = {}
        for term, shape in zip(terms, shapes, strict=True):
            for label, dim in zip(term, shape, strict=True):
                sizes[label] = broadcast_dims(sizes.get(label, 1), dim)
        unknown = set(output) - set(sizes)
        if unknown:
            raise ShapeError(f"equation {self.equation!r}: no input has {sorted(unknown)}")
        return sizes, output

    def infer(self, *xs: Value) -> tuple[Type, ...]:
        require_same_dtype(*xs)
        sizes, output = self.sizes([x.shape for x in xs])
        return (TensorType(xs[0].dtype, tuple(sizes[label] for label in output)),)

    def reference(self, xp: ArrayModule, *xs: Array) -> tuple[Array, ...]:
        y = xp.einsum(self.equation.replace(" ", ""), *map(widen, xs), optimize=True)
        return (y.astype(xs[0].dtype, copy=False),)

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        sizes, _ = self.sizes([x.shape for x in inputs if x is not None])
        return int(product(sizes.values())) * (len(inputs) - 1)


def _labels(text: str, rank: int) -> tuple[str, ...]:
    before, ellipsis, after = text.partition("...")
    hidden = rank - len(before) - len(after)
    if hidden < 0 or (hidden and not ellipsis):
        raise ShapeError(f"term {text!r} for an input of rank {rank}")
    return (*before, *(str(count) for count in range(hidden, 0, -1)), *after)


OPERATORS: tuple[type[Op], ...] = (Einsum,)
