"""ONNX's node cases, damaged: what comes of them is a result or a typed error, soon."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import pytest

from mnnpy import Session
from mnnpy.runtime.errors import MnnpyError
from mnnpy.runtime.graph.types import TensorType, Type
from tests.conformance.suite import load_node_cases

SIZES = (-1, 0, 1, 2, 3, 100)
CASES = 500
MOST_SECONDS = 5.0
MOST_ELEMENTS = 1_000_000
"""A damaged size may ask for any amount of work; what asks for more than this is not run."""


def flip_bytes(model: onnx.ModelProto, rng: random.Random) -> bytes:
    content = bytearray(model.SerializeToString())
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def damage_inputs(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """Take an input from a node, repeat one, leave one out, or swap two."""
    node = rng.choice(model.graph.node)
    if node.input:
        names, place = list(node.input), rng.randrange(len(node.input))
        damages = (
            names[:place] + names[place + 1 :],
            [*names, names[place]],
            [*names[:place], "", *names[place + 1 :]],
            [*names[:place], *names[place + 1 :], names[place]],
        )
        node.input[:] = rng.choice(damages)
    return model.SerializeToString()


def damage_attribute(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """Drop an attribute, or give it another value."""
    node = rng.choice(model.graph.node)
    if node.attribute:
        place = rng.randrange(len(node.attribute))
        attribute = node.attribute[place]
        if rng.random() < 0.2:
            del node.attribute[place]
        elif attribute.type == onnx.AttributeProto.INT:
            attribute.i = rng.choice(SIZES)
        elif attribute.type == onnx.AttributeProto.INTS:
            attribute.ints[:] = [rng.choice(SIZES) for _ in range(rng.randint(0, 5))]
        elif attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = rng.choice((0.0, -1.0, float("nan"), float("inf")))
        elif attribute.type == onnx.AttributeProto.STRING:
            attribute.s = rng.choice((b"", b"x", b"\xff"))
    return model.SerializeToString()


def damage_types(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """Change an input's dimension, rank or element type."""
    if model.graph.input:
        tensor = rng.choice(model.graph.input).type.tensor_type
        dims = tensor.shape.dim
        damage = rng.randrange(3)
        if damage == 0:
            tensor.elem_type = rng.randrange(25)
        elif damage == 1 or not dims:
            dims.add().dim_value = rng.choice(SIZES[1:])
        else:
            rng.choice(dims).dim_value = rng.choice(SIZES[1:])
    return model.SerializeToString()


Damage = Callable[[onnx.ModelProto, random.Random], bytes]
DAMAGES: tuple[Damage, ...] = (flip_bytes, damage_inputs, damage_attribute, damage_types)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_models_end_in_typed_errors(damage: Damage) -> None:
    rng = random.Random(0)
    loose, slow = {}, {}
    for case in rng.sample(load_node_cases(), CASES):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        content = damage(model, rng)
        start = perf_counter()
        try:
            session = Session(content, backend="numpy")
            shapes = {name: fed_shape(declared) for name, declared in session.graph.inputs.items()}
            if sum(map(prod, shapes.values())) < MOST_ELEMENTS:
                session.run({n: feed(session.graph.inputs[n], s) for n, s in shapes.items()})
        except MnnpyError:
            pass
        except Exception as error:
            loose[case.name] = repr(error)
        if perf_counter() - start > MOST_SECONDS:
            slow[case.name] = perf_counter() - start
    assert not loose
    assert not slow


def fed_shape(declared: Type) -> tuple[int, ...]:
    """Two along every symbolic axis."""
    dims = declared.shape if isinstance(declared, TensorType) else ()
    return tuple(dim if isinstance(dim, int) else 2 for dim in dims)


def feed(declared: Type, shape: tuple[int, ...]) -> Any:
    """Ones; an empty sequence for what is no tensor."""
    return np.ones(shape).astype(declared.dtype) if isinstance(declared, TensorType) else []
