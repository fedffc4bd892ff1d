"""Importers of constants, ranges, random numbers and casts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnnpy.converter.importers.base import Importer, OnnxNode, Row, build, direct
from mnnpy.converter.onnx_types import dtype_field
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import dtype_name
from mnnpy.runtime.ops import casting, generation


def _constant_of_shape(node: OnnxNode) -> Op:
    value = node.attributes.get("value")
    if value is None:
        return generation.ConstantOfShape()
    if value.size != 1:
        raise InvalidModelError(f"{node}: value must have one element, it has {value.size}")
    return generation.ConstantOfShape(dtype_name(value.dtype), _scalar(value))


def _scalar(array: np.ndarray[Any, Any]) -> int | float | bool | str | tuple[float, ...]:
    item = array.reshape(()).item()
    if isinstance(item, complex):
        return (item.real, item.imag)
    if isinstance(item, int | float | bool | str):
        return item
    return int(item) if "int" in array.dtype.name else float(item)


def _typed(op_type: type[Op], field: str = "dtype") -> Importer:
    """Importer of operators one of whose attributes is the number of an element type."""

    def importer(node: OnnxNode) -> Op:
        number = node.attributes.get(field)
        name = dtype_field(number)
        given: Mapping[str, Any] = {} if name is None else {field: name}
        return build(op_type, node, **given)

    return importer


def _cast_1(node: OnnxNode) -> Op:
    """Cast-1, whose ``to`` is the name of the element type."""
    names = {"FLOAT": "float32", "DOUBLE": "float64"}
    to = node.attributes["to"].upper()
    return casting.Cast(names.get(to, to.lower()))


ROWS: tuple[Row, ...] = (
    # Narrow floats are computed in float32 always, whatever stash_type permits.
    Row("Range", 11, direct(generation.Range, "stash_type")),
    Row("ConstantOfShape", 9, _constant_of_shape),
    Row("EyeLike", 9, _typed(generation.EyeLike)),
    Row("RandomNormal", 1, _typed(generation.RandomNormal)),
    Row("RandomUniform", 1, _typed(generation.RandomUniform)),
    Row("RandomNormalLike", 1, _typed(generation.RandomNormalLike)),
    Row("RandomUniformLike", 1, _typed(generation.RandomUniformLike)),
    Row("Bernoulli", 15, _typed(generation.Bernoulli)),
    Row("Multinomial", 7, _typed(generation.Multinomial)),
    Row("Cast", 1, _cast_1),
    Row("Cast", 6, _typed(casting.Cast, "to")),
    Row("CastLike", 15, direct(casting.CastLike)),
    Row("BitCast", 26, _typed(casting.BitCast, "to")),
)
