"""Small graphs for tests: hand-made ones and seeded random ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType
from mnnpy.runtime.ops.activation import Clip, Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Identity, Mul
from mnnpy.runtime.ops.shaping import Flatten, Reshape, Transpose
from mnnpy.runtime.ops.slicing import Concat, Slice, Split

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((), (1,), (5,), (1, 12), (2, 6), (1, 3, 8, 8), (2, 4, 5, 7), (1, 4, 5))


class GraphBuilder:
    """Writes a graph node by node; values are referred to by their names."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: dict[str, TensorType] = {}
        self.constants: dict[str, Any] = {}

    def input(self, shape: Sequence[Any], dtype: Any = FLOAT32) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = TensorType(np.dtype(dtype), tuple(shape))
        return name

    def constant(self, content: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(content)
        return name

    def node(self, op: Op, *inputs: str | None, outputs: int = 1) -> str:
        """Add a node; returns the name of its first output."""
        return self.nodes_outputs(op, *inputs, outputs=outputs)[0]

    def nodes_outputs(self, op: Op, *inputs: str | None, outputs: int = 1) -> tuple[str, ...]:
        index = len(self.nodes)
        names = tuple(f"v{index}" + (f"_{i}" if i else "") for i in range(outputs))
        self.nodes.append(Node(f"{op.kind}_{index}", op, inputs, names))
        return names

    def graph(self, *outputs: str) -> Graph:
        return Graph(tuple(self.nodes), self.inputs, outputs, self.constants).validate()


def random_feeds(graph: Graph, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Standard normal (or small whole) numbers for every input of static shape."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(t.shape) * (1 if t.dtype.kind == "f" else 4)).astype(
            t.dtype
        )
        for name, t in graph.inputs.items()
        if isinstance(t, TensorType)
    }


class _Random(GraphBuilder):
    """Grows a random graph over values of known shapes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.shapes: dict[str, Shape] = {}

    def pick(self, wanted: Callable[[Shape], bool] = lambda shape: True) -> str | None:
        """A value; recent ones more often, so that chains grow next to long-lived values."""
        fitting = [name for name, shape in self.shapes.items() if wanted(shape)]
        if not fitting:
            return None
        recent = fitting[-3:] if self.rng.random() < 0.6 else fitting
        return str(self.rng.choice(recent))

    def keep(self, name: str, shape: Sequence[int]) -> None:
        self.shapes[name] = tuple(int(dim) for dim in shape)

    def unary(self) -> None:
        x = self.pick()
        assert x is not None
        ops: tuple[Op, ...] = (Relu(), Sigmoid(), Identity())
        op = ops[self.rng.integers(len(ops))]
        self.keep(self.node(op, x), self.shapes[x])

    def clip(self) -> None:
        x, low, high = self.pick(), self.pick(lambda s: s == ()), self.pick(lambda s: s == ())
        if x is not None and low is not None and high is not None:
            self.keep(self.node(Clip(), x, low, high), self.shapes[x])

    def binary(self) -> None:
        a = self.pick()
        assert a is not None
        b = self.pick(lambda shape: shape in (self.shapes[a], ()))
        op = Add() if self.rng.random() < 0.7 else Mul()
        if b is not None:
            self.keep(self.node(op, a, b), self.shapes[a])

    def reshape(self) -> None:
        x = self.pick()
        assert x is not None
        size = math.prod(self.shapes[x])
        if self.rng.random() < 0.3 and self.shapes[x]:
            rows = self.shapes[x][0]
            self.keep(self.node(Flatten(), x), (rows, size // rows))
            return
        first = int(self.rng.choice([d for d in range(1, size + 1) if size % d == 0]))
        shape = (1, first, size // first) if self.rng.random() < 0.5 else (first, size // first)
        self.keep(self.node(Reshape(), x, self.constant(np.array(shape, np.int64))), shape)

    def transpose(self) -> None:
        x = self.pick(lambda shape: len(shape) > 1)
        if x is not None:
            order = tuple(int(axis) for axis in self.rng.permutation(len(self.shapes[x])))
            shape = [self.shapes[x][axis] for axis in order]
            self.keep(self.node(Transpose(order), x), shape)

    def concat(self) -> None:
        first = self.pick(lambda shape: len(shape) > 0)
        if first is None:
            return
        shape = self.shapes[first]
        axis = int(self.rng.integers(len(shape)))

        def fits(other: Shape) -> bool:
            return len(other) == len(shape) and all(
                a == b for i, (a, b) in enumerate(zip(shape, other, strict=True)) if i != axis
            )

        pieces = [first, *(self.pick(fits) for _ in range(self.rng.integers(1, 4)))]
        self.rng.shuffle(pieces)
        total = sum(self.shapes[str(piece)][axis] for piece in pieces)
        self.keep(self.node(Concat(axis), *pieces), (*shape[:axis], total, *shape[axis + 1 :]))

    def split(self) -> None:
        x = self.pick(lambda shape: len(shape) > 0 and max(shape) > 1)
        if x is None:
            return
        shape = self.shapes[x]
        axis = int(np.argmax(shape))
        cut = int(self.rng.integers(1, shape[axis]))
        sizes = (cut, shape[axis] - cut)
        names = self.nodes_outputs(
            Split(2, axis), x, self.constant(np.array(sizes, np.int64)), outputs=2
        )
        for name, size in zip(names, sizes, strict=True):
            self.keep(name, (*shape[:axis], size, *shape[axis + 1 :]))

    def slice(self) -> None:
        x = self.pick(lambda shape: len(shape) > 0 and shape[0] > 1)
        if x is None:
            return
        start = int(self.rng.integers(self.shapes[x][0]))
        bounds = [self.constant(np.array([value], np.int64)) for value in (start, 1 << 40, 0)]
        self.keep(self.node(Slice(), x, *bounds), (self.shapes[x][0] - start, *self.shapes[x][1:]))

    def conv(self) -> None:
        x = self.pick(lambda shape: len(shape) == 4)
        if x is None:
            return
        n, c, h, w = self.shapes[x]
        k = int(self.rng.integers(1, 6))
        weights = self.rng.standard_normal((k, c, 3, 3)).astype(np.float32) / (3 * c)
        bias = self.rng.standard_normal(k).astype(np.float32)
        op = Conv(pads=(1, 1, 1, 1))
        y = self.node(op, x, self.constant(weights), self.constant(bias))
        self.keep(y, (n, k, h, w))


def random_graph(seed: int, size: int = 14) -> Graph:
    """A graph of in-place operators, views, concatenations, splits and convolutions.

    Inputs are shared, values have several readers, and outputs are read inside as well.
    """
    builder = _Random(seed)
    rng = builder.rng
    for _ in range(rng.integers(1, 4)):
        shape = SHAPES[rng.integers(len(SHAPES))]
        builder.keep(builder.input(shape), shape)
    moves = (
        builder.unary,
        builder.unary,
        builder.clip,
        builder.binary,
        builder.binary,
        builder.reshape,
        builder.transpose,
        builder.concat,
        builder.concat,
        builder.split,
        builder.slice,
        builder.conv,
    )
    for _ in range(size):
        moves[rng.integers(len(moves))]()
    names = list(builder.shapes)
    count = min(len(names), int(rng.integers(1, 4)))
    outputs = {str(name) for name in rng.choice(names, count, replace=False)} | {names[-1]}
    return builder.graph(*sorted(outputs))


def assert_close(
    got: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: float = 1e-5
) -> None:
    """Relative error as everywhere: max|difference| / max|wanted|."""
    assert set(got) == set(wanted)
    for name, expected in wanted.items():
        assert got[name].shape == expected.shape, name
        assert got[name].dtype == expected.dtype, name
        if expected.size:
            scale = max(float(np.max(np.abs(expected))), 1e-30)
            worst = float(np.max(np.abs(got[name] - expected)))
            assert worst <= tolerance * scale, f"{name}: {worst / scale:.1e}"
