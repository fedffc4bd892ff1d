"""ONNX's own rules for a node: how many inputs and outputs, which attributes of which type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import onnx
from onnx import defs

from mnnpy.runtime.errors import InvalidModelError

_UNBOUNDED = 2**31 - 1
"""The most inputs that onnx gives for variadic operators."""


class _Rules(NamedTuple):
    """What nodes of one operator look like. ``needed[i]``: input i may not be left out."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    needed: tuple[bool, ...]
    kinds: Mapping[str, str]
    required: frozenset[str]


def require_schema(proto: onnx.NodeProto, domain: str, version: int) -> None:
    """Raise ``InvalidModelError`` where a node breaks ONNX's rules for its operator.

    Attributes that the operator does not have are the importers' matter, which know those of old
    opsets that carry no meaning; so are operators that ONNX does not define.
    """
    rules = _rules(proto.op_type, version, domain)
    if rules is None:
        return
    reason = (
        _miscounted("inputs", len(proto.input), rules.inputs)
        or _miscounted("outputs", len(proto.output), rules.outputs)
        or _left_out(proto, rules)
        or _misfit_attribute(proto, rules)
    )
    if reason is not None:
        raise InvalidModelError(
            f"{proto.op_type} node {_label(proto)} breaks the rules of opset {version}: {reason}"
        )


@cache
def _rules(op_type: str, version: int, domain: str) -> _Rules | None:
    try:
        schema: Any = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None
    single = defs.OpSchema.FormalParameterOption.Single
    attributes = schema.attributes
    return _Rules(
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        tuple(parameter.option == single for parameter in schema.inputs),
        {name: attribute.type.name for name, attribute in attributes.items()},
        frozenset(name for name, attribute in attributes.items() if attribute.required),
    )


def _miscounted(role: str, count: int, limits: tuple[int, int]) -> str | None:
    least, most = limits
    if least <= count <= most:
        return None
    wanted = f"{least}" if least == most else f"{least} to {most}"
    return f"{count} {role}, it takes {f'at least {least}' if most == _UNBOUNDED else wanted}"


def _left_out(proto: onnx.NodeProto, rules: _Rules) -> str | None:
    for place, (name, needed) in enumerate(zip(proto.input, rules.needed, strict=False)):
        if needed and not name:
            return f"input {place} is left out"
    return None


def _misfit_attribute(proto: onnx.NodeProto, rules: _Rules) -> str | None:
    missing = rules.required.difference(attribute.name for attribute in proto.attribute)
    if missing:
        return f"attribute {min(missing)!r} is missing"
    for attribute in proto.attribute:
        kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
        wanted = rules.kinds.get(attribute.name, kind)
        if kind != wanted:
            return f"attribute {attribute.name!r} is of type {kind}, it takes {wanted}"
    return None


def _label(proto: onnx.NodeProto) -> str:
    """The node's name, or what it writes where it has none."""
    return repr(proto.name or next(iter(proto.output), ""))
