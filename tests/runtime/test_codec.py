"""Operators, types and graphs as JSON, both ways."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnnpy.runtime.codec import Decoder, encode, parse_json, write_json
from mnnpy.runtime.errors import ModelFormatError
from mnnpy.runtime.graph.dims import SymbolicDim
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import (
    DTYPES,
    FLOAT32,
    INT64,
    OptionalType,
    SequenceType,
    TensorType,
    Type,
    UnknownType,
)
from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.activation import LeakyRelu, Relu
from mnnpy.runtime.ops.convolution import Conv

INNER = Graph((Node("r", Relu(), ("a",), ("b",)),), {"a": UnknownType()}, ("b",), name="inner")
N = SymbolicDim.named("n")

TYPES: tuple[Type, ...] = (
    *(TensorType(dtype, (2, 3)) for dtype in DTYPES.values()),
    TensorType(FLOAT32, ()),
    TensorType(INT64, (N, 2 * N + 1, (N - 3) // 2)),
    SequenceType(None),
    SequenceType(TensorType(FLOAT32, (N,))),
    SequenceType(SequenceType(OptionalType(None))),
    OptionalType(TensorType(FLOAT32, ())),
    UnknownType(),
)


def round_trip(value: Any, hint: Any) -> Any:
    text = write_json(encode(value, store=lambda name, array: array.tolist()))
    decoder = Decoder(fetch=lambda stored, where: np.array(stored, dtype=np.float32))
    return decoder.decode(parse_json(text), hint, "value")


def escaped(content: bytes) -> str:
    """How the ONNX reader keeps a string attribute that is no valid UTF-8."""
    return content.decode("utf-8", "surrogateescape")


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this declared type may hold."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**63),
        float: st.floats() | st.integers(-3, 3),
        str: st.text() | st.binary(max_size=3).map(escaped),
        bool: st.booleans(),
        NoneType: st.none(),
        Graph: st.just(INNER),
    }
    if hint in plain:
        return plain[hint]
    arguments = get_args(hint)
    if set(arguments) >= set(get_args(Type)):
        return st.sampled_from(TYPES)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*map(values_of, arguments))
    assert get_origin(hint) is tuple, hint
    if arguments[-1] is ...:
        return st.lists(values_of(arguments[0]), max_size=4).map(tuple)
    return st.tuples(*map(values_of, arguments))


@pytest.mark.parametrize("kind", OPERATORS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_operators_survive(kind: str, data: st.DataObject) -> None:
    operator = OPERATORS[kind]
    hints = get_type_hints(operator)
    drawn = {f.name: data.draw(values_of(hints[f.name]), f.name) for f in fields(operator)}
    op = operator(**drawn)
    decoded = round_trip(op, Op)
    assert type(decoded) is operator
    assert repr(decoded) == repr(op)  # nan differs from itself, its text does not


@pytest.mark.parametrize("kind", [kind for kind, op in OPERATORS.items() if fields(op)])
def test_operators_refuse_wrong_attributes(kind: str) -> None:
    operator = OPERATORS[kind]
    for field in fields(operator):
        data = {"kind": kind, "attributes": {field.name: {"not": "this"}}}
        with pytest.raises(ModelFormatError, match=r"op\.attributes"):
            Decoder().decode(data, Op, "op")


@pytest.mark.parametrize("value", TYPES, ids=str)
def test_types_survive(value: Type) -> None:
    assert round_trip(value, Type) == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 1])
def test_floats_survive(value: float) -> None:
    decoded = round_trip(LeakyRelu(value), Op)
    assert decoded.alpha == value
    assert math.copysign(1, decoded.alpha) == math.copysign(1, value)


def test_nan_survives() -> None:
    assert math.isnan(round_trip(LeakyRelu(math.nan), Op).alpha)


def test_graphs_survive() -> None:
    constants = {"w": np.ones((2, 2), np.float32)}
    branch = OPERATORS["If"](INNER, INNER)  # type: ignore[call-arg]
    nodes = (
        Node("if", branch, ("c", None, "x"), ("v", "y")),
        Node("relu", Relu(), ("y",), ("z",)),
    )
    inputs = {"c": TensorType(DTYPES["bool"], ()), "x": TensorType(FLOAT32, (N, 4))}
    graph = Graph(nodes, inputs, ("z",), constants, "outer", {"opset": "17"})
    decoded = round_trip(graph, Graph)
    assert decoded == graph
    assert hash(decoded) == hash(graph)
    assert list(decoded.inputs.items()) == list(graph.inputs.items())
    assert decoded.nodes == graph.nodes
    assert (decoded.name, decoded.metadata) == (graph.name, graph.metadata)


def test_missing_attributes_take_their_defaults() -> None:
    assert Decoder().decode({"kind": "LeakyRelu", "attributes": {}}, Op, "op") == LeakyRelu()


@pytest.mark.parametrize(
    ("data", "hint", "message"),
    [
        ([1, "x"], tuple[int, ...], r"^value\[1\]: expected int, found 'x'$"),
        ([1, 2], tuple[int, int, int], "expected 3 entries"),
        (True, int, "expected int, found True"),
        (1, bool, "expected bool"),
        ("nan", float, "expected float"),
        ({"float": "big"}, float, "expected float"),
        ({"float": "nan", "more": 1}, float, "expected float"),
        (None, str, "expected str, found None"),
        ([], int | str, "expected int or str"),
        ({"a": {"b": 1}}, Mapping[str, str], r"value\.a: expected str"),
        ("float31", np.dtype[Any], "element type"),
        ({"kind": "Relu"}, Op, r"value\.attributes: expected an object, found None"),
        ({"kind": "Relu", "attributes": {}, "x": 1}, Op, "unknown key 'x'"),
        ({"kind": "Relu", "attributes": {"alpha": 1}}, Op, "unknown key 'alpha'; known: -"),
        ({"kind": "Rely", "attributes": {}}, Op, "no operator 'Rely'"),
        (
            {"kind": "ai.onnx.preview.training.Momentum", "attributes": {"beta": 1.0}},
            Op,
            r"'alpha' is missing",
        ),
        ({"name": "n", "op": {}, "inputs": []}, Node, "'outputs' is missing"),
    ],
)
def test_malformed_data_name_their_place(data: Any, hint: Any, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        Decoder().decode(data, hint, "value")


@pytest.mark.parametrize(
    "attribute", [np.float32(1), np.float64("nan"), np.int64(1), object(), b"bytes", {1}]
)
def test_what_has_no_form_is_refused(attribute: Any) -> None:
    with pytest.raises(ModelFormatError, match="has no form in a file"):
        encode(LeakyRelu(attribute), store=lambda name, array: None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "UTF-8"),
        ("[1,", "not valid JSON"),
        ("NaN", "NaN is not JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        ("[" * 10_000, "nested too deeply"),
        ("1" * 10_000, "not valid JSON"),
        ("[" + "1," * 1_000_000 + "1]", "values"),
    ],
    ids=["bytes", "cut", "nan", "twice", "deep", "digits", "many"],
)
def test_hostile_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        parse_json(text)


def test_json_is_standard() -> None:
    text = write_json(encode(LeakyRelu(math.inf), store=lambda name, array: None))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_graphs_differ_by_large_constants() -> None:
    def graph(fill: float) -> Graph:
        weights = {"w": np.full((64, 64), fill, np.float32)}
        return Graph((Node("r", Relu(), ("w",), ("y",)),), {}, ("y",), weights)

    assert graph(1) == graph(1)
    assert graph(1) != graph(2)
    assert OPERATORS["If"](INNER, graph(1)) != OPERATORS["If"](INNER, graph(2))  # type: ignore[call-arg]
    assert Conv((1,), (0, 0), (1,)) != graph(1)
