"""Graphs, operators, types and the records of plans as JSON values, both ways.

Encoding follows the values; decoding follows the declared types of the dataclasses' fields, so that
a new operator or a new field needs nothing here. Arrays are the caller's matter: a model file keeps
them beside the JSON, a plan file inside it. What does not fit raises ``ModelFormatError`` and says
where: ``graph.nodes[3].op.attributes.pads[1]: expected int, found 'x'``.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from mnnpy.runtime.errors import InvalidModelError, ModelFormatError
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op, operator_kind
from mnnpy.runtime.graph.types import (
    DTYPES,
    Array,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    UnknownType,
    dtype_name,
)
from mnnpy.runtime.ops import OPERATORS

Json: TypeAlias = Any
"""None, bool, int, float, str, a list or a dict of these."""

Where: TypeAlias = "str | tuple[Where, str | int]"
"""A place in a file: its name, or a place around it and the key or index there."""

StoreArray: TypeAlias = Callable[[str, Array], Json]
"""Keeps a graph's constant of that name; returns the JSON value that finds it again."""

FetchArray: TypeAlias = Callable[[Json, Where], Array]
"""The array that ``StoreArray`` kept, from its JSON value and where that stands."""

MAX_VALUES = 600_000
"""Most values of one JSON text: some 30,000 nodes; parsed, they take less than 200 MB."""

_SHOWN = 100
_TYPE_TAGS: dict[str, type[Any]] = {
    "tensor": TensorType,
    "sequence": SequenceType,
    "optional": OptionalType,
    "unknown": UnknownType,
}
_TAG_OF = {kind: tag for tag, kind in _TYPE_TAGS.items()}
_NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_PLAIN: dict[Any, frozenset[type[Any]]] = {
    int: frozenset({int}),
    float: frozenset({int, float}),
    str: frozenset({str}),
    bool: frozenset({bool}),
    NoneType: frozenset({NoneType}),
}
"""Declared type -> types of JSON values that stand for themselves."""

_GRAPH_HINTS: dict[str, Any] = {
    "nodes": tuple[Node, ...],
    "inputs": Mapping[str, Type],
    "outputs": tuple[str, ...],
    "name": str,
    "metadata": Mapping[str, str],
}


def parse_json(text: bytes | str, max_values: int = MAX_VALUES) -> Json:
    """Parse a text of untrusted origin.

    Raises
    ------
    ModelFormatError
        Where it is not JSON, repeats a key, is nested too deeply, or has more than ``max_values``
        values (counted before anything is built from them).
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        values = sum(map(decoded.count, "{[,"))
        if values > max_values:
            raise ModelFormatError(f"about {values} JSON values; at most {max_values} are read")
        return json.loads(decoded, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"the JSON is not UTF-8: {error}") from error
    except RecursionError as error:
        raise ModelFormatError("the JSON is nested too deeply") from error
    except ValueError as error:
        raise ModelFormatError(f"not valid JSON: {error}") from error


def write_json(value: Json, indent: int | None = None) -> str:
    """JSON in ASCII, which also keeps strings that are no valid UTF-8."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, allow_nan=False, indent=indent, separators=separators)


def encode(value: object, store: StoreArray) -> Json:
    """A JSON value for an operator, type, graph, any dataclass of these, or a container of these.

    Raises
    ------
    ModelFormatError
        On a value that no file can hold (a NumPy scalar in an attribute, say).
    """
    if type(value) is float and not math.isfinite(value):
        return {"float": str(value)}
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Graph):
        return _encode_graph(value, store)
    if isinstance(value, Op):
        return {"kind": operator_kind(type(value)), "attributes": _encode_fields(value, store)}
    if type(value) in _TAG_OF:
        return {_TAG_OF[type(value)]: _encode_fields(value, store)}
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_fields(value, store)
    if isinstance(value, Mapping):
        return {key: encode(entry, store) for key, entry in value.items()}
    if isinstance(value, frozenset):
        return [encode(entry, store) for entry in sorted(value)]
    if isinstance(value, tuple | list):
        return [encode(entry, store) for entry in value]
    if isinstance(value, np.dtype):
        return dtype_name(value)
    raise ModelFormatError(f"{value!r} of type {type(value).__name__} has no form in a file")


def _encode_fields(record: Any, store: StoreArray) -> dict[str, Json]:
    return {entry.name: encode(getattr(record, entry.name), store) for entry in fields(record)}


def _encode_graph(graph: Graph, store: StoreArray) -> dict[str, Json]:
    encoded = {name: encode(getattr(graph, name), store) for name in _GRAPH_HINTS}
    constants = {name: store(name, array) for name, array in graph.constants.items()}
    return {**encoded, "constants": constants}


def _no_arrays(stored: Json, where: Where) -> NoReturn:
    raise malformed(where, "there are no arrays here")


class Decoder:
    """Builds values from JSON by declared types.

    Parameters
    ----------
    operators : what may occur, by kind.
    fetch : finds the constants of graphs.
    """

    def __init__(
        self, operators: Mapping[str, type[Op]] = OPERATORS, fetch: FetchArray = _no_arrays
    ) -> None:
        self._operators = operators
        self._fetch = fetch

    def decode(self, data: Json, hint: Any, where: Where) -> Any:
        """A value of the declared type ``hint``.

        Raises
        ------
        ModelFormatError
            Where the data do not fit it; the message begins with the place, ``where`` onwards.
        """
        try:
            return self._decode(data, hint, where)
        except RecursionError as error:
            raise malformed(where, "nested too deeply") from error

    def _decode(self, data: Json, hint: Any, where: Where) -> Any:
        if type(data) in _plain_types(hint):
            return data
        if hint in _PLAIN:
            return _non_finite(data, hint, where)
        origin, arguments = _opened(hint)
        if origin in (Union, UnionType):
            return self._union(data, arguments, where)
        if origin is tuple:
            return self._tuple(data, arguments, where)
        if origin is Mapping:
            return {
                key: self._decode(entry, arguments[1], (where, key))
                for key, entry in _checked(data, dict, "an object", where).items()
            }
        if origin is frozenset:
            return frozenset(self._tuple(data, (*arguments, ...), where))
        if origin is np.dtype:
            return dtype_from(data, where)
        if hint is Op:
            return self._op(data, where)
        if hint is Graph:
            return self._graph(data, where)
        return self._record(data, hint, where)

    def _union(self, data: Json, arms: tuple[Any, ...], where: Where) -> Any:
        present = [arm for arm in arms if arm is not NoneType]
        if set(present) == set(_TAG_OF):
            return self._type(data, where)
        if len(present) == 1:
            return self._decode(data, present[0], where)
        for arm in present:
            try:
                return self._decode(data, arm, where)
            except ModelFormatError:
                continue
        raise _unfit(data, " or ".join(map(_hint_name, arms)), where)

    def _tuple(self, data: Json, arguments: tuple[Any, ...], where: Where) -> tuple[Any, ...]:
        entries = _checked(data, list, "an array", where)
        hints = arguments
        if arguments[-1:] == (...,):
            plain = _plain_types(arguments[0])
            if all(type(entry) in plain for entry in entries):
                return tuple(entries)
            hints = arguments[:1] * len(entries)
        if len(hints) != len(entries):
            raise _unfit(data, f"{len(hints)} entries", where)
        pairs = enumerate(zip(entries, hints, strict=True))
        return tuple(self._decode(entry, hint, (where, i)) for i, (entry, hint) in pairs)

    def _record(self, data: Json, record: Any, where: Where) -> Any:
        """A dataclass from an object with a key per field; fields with defaults may be missing."""
        entries = _checked(data, dict, "an object", where)
        hints, required = _field_hints(record)
        _refuse_unknown(entries, hints, where)
        if not required <= entries.keys():
            raise malformed(where, f"{min(required - entries.keys())!r} is missing")
        return record(
            **{
                name: self._decode(entry, hints[name], (where, name))
                for name, entry in entries.items()
            }
        )

    def _op(self, data: Json, where: Where) -> Op:
        entries = _checked(data, dict, "an operator", where)
        _refuse_unknown(entries, ("kind", "attributes"), where)
        kind = self._decode(entries.get("kind"), str, (where, "kind"))
        operator = self._operators.get(kind)
        if operator is None:
            raise malformed(
                where,
                f"there is no operator {shown(kind)}; one of a user's own is known where the "
                "library that it is registered in is given, as operators=...",
            )
        op: Op = self._record(entries.get("attributes"), operator, (where, "attributes"))
        return op

    def _type(self, data: Json, where: Where) -> Type:
        entries = _checked(data, dict, "a type", where)
        if len(entries) != 1 or (tag := next(iter(entries))) not in _TYPE_TAGS:
            raise _unfit(data, f"one of {', '.join(_TYPE_TAGS)}", where)
        decoded: Type = self._record(entries[tag], _TYPE_TAGS[tag], (where, tag))
        if isinstance(decoded, TensorType):
            negative = [dim for dim in decoded.shape if isinstance(dim, int) and dim < 0]
            if negative:
                raise malformed(where, f"dimension {negative[0]} is negative")
        return decoded

    def _graph(self, data: Json, where: Where) -> Graph:
        entries = dict(_checked(data, dict, "a graph", where))
        _refuse_unknown(entries, (*_GRAPH_HINTS, "constants"), where)
        constants = _checked(entries.get("constants"), dict, "an object", (where, "constants"))
        arrays = {
            name: self._fetch(stored, ((where, "constants"), name))
            for name, stored in constants.items()
        }
        decoded = {
            name: self._decode(entries.get(name), hint, (where, name))
            for name, hint in _GRAPH_HINTS.items()
        }
        try:
            return Graph(constants=arrays, **decoded).validate()
        except InvalidModelError as error:
            raise malformed(where, f"{error}") from error


def malformed(where: Where, message: str) -> ModelFormatError:
    """The error of that place."""
    parts: list[str] = []
    while isinstance(where, tuple):
        where, part = where
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part[:_SHOWN]}")
    return ModelFormatError(f"{where}{''.join(reversed(parts))}: {message}")


def shown(data: Json) -> str:
    """The data as an error shows them: no longer than a line."""
    return reprlib.repr(data)


def dtype_from(data: Json, where: Where) -> np.dtype[Any]:
    """The element type of that name."""
    if not isinstance(data, str) or data not in DTYPES:
        raise _unfit(data, "the name of an element type", where)
    return DTYPES[data]


def _non_finite(data: Json, hint: Any, where: Where) -> float:
    """A float that JSON lacks; anything else does not fit."""
    if hint is float and isinstance(data, dict) and list(data) == ["float"]:
        name = data["float"]
        if isinstance(name, str) and name in _NON_FINITE:
            return _NON_FINITE[name]
    raise _unfit(data, hint.__name__, where)


def _checked(data: Json, kind: type[Any], name: str, where: Where) -> Any:
    if not isinstance(data, kind):
        raise _unfit(data, name, where)
    return data


def _unfit(data: Json, expected: str, where: Where) -> ModelFormatError:
    return malformed(where, f"expected {expected}, found {shown(data)}")


def _refuse_unknown(entries: Mapping[str, Json], known: Any, where: Where) -> None:
    unknown = [name for name in entries if name not in known]
    if unknown:
        raise malformed(where, f"unknown key {shown(unknown[0])}; known: {', '.join(known) or '-'}")


def _hint_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


@cache
def _opened(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """``tuple[int, ...]`` -> ``tuple``, ``(int, ...)``."""
    return get_origin(hint), get_args(hint)


@cache
def _plain_types(hint: Any) -> frozenset[type[Any]]:
    """Types of JSON values that need no decoding under this declared type."""
    if get_origin(hint) in (Union, UnionType):
        return frozenset().union(*map(_plain_types, get_args(hint)))
    return _PLAIN.get(hint, frozenset())


@cache
def _field_hints(record: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Field name -> declared type; and the fields without a default."""
    hints = get_type_hints(record)
    required = frozenset(
        entry.name
        for entry in fields(record)
        if entry.default is MISSING and entry.default_factory is MISSING
    )
    return {entry.name: hints[entry.name] for entry in fields(record)}, required


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ModelFormatError(f"key {shown(twice)} stands twice in one JSON object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ModelFormatError(f"{name} is not JSON")
