"""Ways to damage a model, its bytes or its graph; each changes what it is given, if anything."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import onnx
from onnx import AttributeProto, NodeProto

SIZES = (-(2**63), -100, -1, 0, 1, 2, 3, 7, 100, 2**31, 2**40, 2**63 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))
TEXTS = (b"", b"x", b"SAME_UPPER", b"\xff", b"linear", b"NOTSET")
ELEMENT_TYPES = 25

GraphDamage: TypeAlias = Callable[[onnx.ModelProto, random.Random], object]
BytesDamage: TypeAlias = Callable[[bytearray, random.Random], object]


def flip_bytes(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def repeat_piece(content: bytearray, rng: random.Random) -> None:
    begin = rng.randrange(len(content))
    piece = content[begin : begin + rng.randint(1, 64)]
    place = rng.randrange(len(content))
    content[place:place] = piece * rng.choice((1, 2, 50))


def drop_piece(content: bytearray, rng: random.Random) -> None:
    begin = rng.randrange(len(content))
    del content[begin : begin + rng.randint(1, 16)]


def damage_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    """Take an input from a node, repeat one, leave one out, or swap two."""
    node = _node(model, rng)
    if node.input:
        names, place = list(node.input), rng.randrange(len(node.input))
        damages = (
            names[:place] + names[place + 1 :],
            [*names, names[place]],
            [*names[:place], "", *names[place + 1 :]],
            [*names[:place], *names[place + 1 :], names[place]],
        )
        node.input[:] = rng.choice(damages)


def rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    """Let a node read any other value, be it its own result or a name that nobody writes."""
    node, graph = _node(model, rng), model.graph
    names = [entry.name for entry in (*graph.input, *graph.initializer, *graph.output)]
    names += [name for other in graph.node for name in other.output] + ["nowhere"]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def damage_outputs(model: onnx.ModelProto, rng: random.Random) -> None:
    """Add an output to a node, drop one, or give one a name that is taken."""
    node, graph = _node(model, rng), model.graph
    place = rng.randrange(3)
    if place == 0:
        node.output.append(rng.choice(("", "extra", *(entry.name for entry in graph.input))))
    elif node.output and place == 1:
        del node.output[rng.randrange(len(node.output))]
    elif node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(("", *node.output, *node.input))


def drop_node(model: onnx.ModelProto, rng: random.Random) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


def repeat_node(model: onnx.ModelProto, rng: random.Random) -> None:
    """The same node again, as it is or under new names."""
    node = NodeProto()
    node.CopyFrom(_node(model, rng))
    if rng.random() < 0.5:
        node.output[:] = [f"{name}_again" for name in node.output]
    model.graph.node.append(node)


def shuffle_nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def change_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another operator with the inputs and attributes of this one, or another domain."""
    node = _node(model, rng)
    if rng.random() < 0.1:
        node.domain = rng.choice(("", "ai.onnx.ml", "com.microsoft", "nowhere"))
    else:
        node.op_type = rng.choice(_operators())


def damage_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """Drop an attribute, rename it, or give it another value or type."""
    node = _node(model, rng)
    if not node.attribute:
        return
    place = rng.randrange(len(node.attribute))
    attribute, turn = node.attribute[place], rng.random()
    if turn < 0.15:
        del node.attribute[place]
    elif turn < 0.2:
        attribute.name = rng.choice(("axis", "axes", "to", "mode", "nonsense"))
    elif turn < 0.25:
        attribute.type = rng.randrange(15)
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(SIZES)
    elif attribute.type == AttributeProto.INTS:
        attribute.ints[:] = [rng.choice(SIZES) for _ in range(rng.randint(0, 5))]
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.FLOATS:
        attribute.floats[:] = [rng.choice(FLOATS) for _ in range(rng.randint(0, 5))]
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice(TEXTS)
    elif attribute.type == AttributeProto.TENSOR:
        _damage_tensor(attribute.t, rng)


def damage_types(model: onnx.ModelProto, rng: random.Random) -> None:
    """Change an input's dimension, rank or element type."""
    if not model.graph.input:
        return
    tensor = rng.choice(model.graph.input).type.tensor_type
    dims = tensor.shape.dim
    damage = rng.randrange(4)
    if damage == 0:
        tensor.elem_type = rng.randrange(ELEMENT_TYPES)
    elif damage == 1 or not dims:
        dims.add().dim_value = rng.choice(SIZES)
    elif damage == 2:
        rng.choice(dims).dim_param = rng.choice(("n", "", "?", "2*n"))
    else:
        rng.choice(dims).dim_value = rng.choice(SIZES)


def damage_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        _damage_tensor(rng.choice(model.graph.initializer), rng)


def freeze_input(model: onnx.ModelProto, rng: random.Random) -> None:
    """Make an input an initialiser of few values, so that the converter computes with them."""
    if model.graph.input:
        place = rng.randrange(len(model.graph.input))
        entry = model.graph.input[place]
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = entry.name, entry.type.tensor_type.elem_type
        tensor.dims[:] = [rng.choice((0, 1, 2)) for _ in entry.type.tensor_type.shape.dim]
        tensor.raw_data = bytes(rng.choice((0, 1, 2, 4, 8, 16, 64)))
        del model.graph.input[place]


def change_opset(model: onnx.ModelProto, rng: random.Random) -> None:
    for entry in model.opset_import:
        entry.version = rng.choice((0, 1, 6, 7, 9, 11, 13, 18, 21, 100, 2**40))


BYTES_DAMAGES: tuple[BytesDamage, ...] = (flip_bytes, truncate, repeat_piece, drop_piece)
GRAPH_DAMAGES: tuple[GraphDamage, ...] = (
    damage_inputs,
    rewire,
    damage_outputs,
    drop_node,
    repeat_node,
    shuffle_nodes,
    change_operator,
    damage_attribute,
    damage_types,
    damage_initializer,
    freeze_input,
    change_opset,
)


def damaged(model: onnx.ModelProto, rng: random.Random) -> bytes:
    """The content of a model after one to three damages to its graph, or one to its bytes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    in_bytes = rng.random() < 0.25
    for _ in range(0 if in_bytes else rng.choice((1, 1, 2, 3))):
        if copy.graph.node:
            rng.choice(GRAPH_DAMAGES)(copy, rng)
    content = bytearray(copy.SerializeToString())
    if in_bytes:
        rng.choice(BYTES_DAMAGES)(content, rng)
    return bytes(content)


def _node(model: onnx.ModelProto, rng: random.Random) -> NodeProto:
    return rng.choice(model.graph.node)


def _damage_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    damage = rng.randrange(4)
    if damage == 0:
        tensor.data_type = rng.randrange(ELEMENT_TYPES)
    elif damage == 1 or not tensor.dims:
        tensor.dims.append(rng.choice(SIZES))
    elif damage == 2:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    else:
        tensor.raw_data = tensor.raw_data[: rng.randrange(1 + len(tensor.raw_data))]


def _operators() -> list[str]:
    return sorted({schema.name for schema in onnx.defs.get_all_schemas()})
