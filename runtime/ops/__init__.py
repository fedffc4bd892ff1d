"""Operators: one file per family, one frozen dataclass per operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module

from mnnpy.runtime.graph.op import Op, operator_kind

_FAMILIES = (
    *("elementwise", "activation", "convolution", "matmul", "pooling", "shaping", "slicing"),
    *("reduction", "normalization", "indexing", "casting", "generation", "logic", "selection"),
    *("resize", "dropout", "attention", "control", "einsum", "quantization"),
    *("quantized_products", "recurrent", "blocks", "deformable", "detection", "flex_attention"),
    *("grid_sample", "image", "linear_algebra", "linear_attention", "loss", "ml", "roi"),
    *("sequence", "signal", "text", "training", "trees", "classes"),
)
"""The more networks use a family, the earlier it comes: see :class:`Operators`."""


class Operators(Mapping[str, type[Op]]):
    """Operators by their kind (ONNX spelling), loaded family by family until one is found.

    A model so loads the families that it uses and those before them.

    Parameters
    ----------
    more : operators that no family has.
    """

    def __init__(self, more: Mapping[str, type[Op]] | None = None) -> None:
        self._more = dict(more or {})

    def __getitem__(self, kind: str) -> type[Op]:
        if kind in self._more:
            return self._more[kind]
        for family in _FAMILIES:
            found = _operators_of(family).get(kind)
            if found is not None:
                return found
        raise KeyError(kind)

    def __iter__(self) -> Iterator[str]:
        kinds = dict.fromkeys(kind for family in _FAMILIES for kind in _operators_of(family))
        return iter(kinds | dict.fromkeys(self._more))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __or__(self, more: Mapping[str, type[Op]]) -> Operators:
        return Operators({**self._more, **more})


OPERATORS = Operators()
"""Every operator by its kind: what the model file's codec knows."""


@cache
def _operators_of(family: str) -> Mapping[str, type[Op]]:
    operators: tuple[type[Op], ...] = import_module(f"{__name__}.{family}").OPERATORS
    return {operator_kind(op): op for op in operators}
