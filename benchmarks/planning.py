"""How long planning takes: ``python -m benchmarks.planning`` prints the seconds of every phase.

The graph is a chain of blocks, each a convolution with bias, an activation and two branches that
join again by addition or concatenation.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.inference import infer_values
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value
from mnnpy.runtime.ops.activation import Relu, Sigmoid
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add, Mul
from mnnpy.runtime.ops.slicing import Concat
from mnnpy.runtime.preinference.planner import make_plan
from mnnpy.runtime.registry import with_fallbacks

CHANNELS, SIZE = 16, 14


def chain_and_branch(count: int) -> Graph:
    """A graph of ``count`` nodes, seven to a block."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 12,
        "b": np.zeros(CHANNELS, np.float32),
        "narrow": rng.standard_normal((CHANNELS, 2 * CHANNELS, 1, 1)).astype(np.float32) / 6,
    }
    nodes: list[Node] = []

    def add(op: Op, *inputs: str) -> str:
        index = len(nodes)
        nodes.append(Node(f"n{index}", op, inputs, (f"v{index}",)))
        return f"v{index}"

    x = "x"
    for block in range(count // 7):
        trunk = add(Relu(), add(Conv(pads=(1, 1, 1, 1)), x, "w", "b"))
        left = add(Conv(pads=(1, 1, 1, 1)), trunk, "w")
        right = add(Mul(), trunk, add(Sigmoid(), trunk))
        if block % 2:
            x = add(Relu(), add(Add(), left, right))
        else:
            x = add(Conv(), add(Concat(1), left, right), "narrow", "b")
    while len(nodes) < count:
        x = add(Relu(), x)
    shape = (1, CHANNELS, SIZE, SIZE)
    return Graph(tuple(nodes), {"x": TensorType(FLOAT32, shape)}, (x,), constants).validate()


def main() -> None:
    """Print the time of type inference and of the whole of planning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--backend", default="numpy")
    args = parser.parse_args()
    graph = chain_and_branch(args.nodes)
    inputs = {name: Value(declared) for name, declared in graph.inputs.items()}
    backends = with_fallbacks(args.backend)
    start = time.perf_counter()
    infer_values(graph, inputs)
    inferred = time.perf_counter()
    plan = make_plan(graph, inputs, backends).plan
    end = time.perf_counter()
    memory = plan.memory
    print(f"{args.nodes} nodes, {len(plan.steps)} steps on {', '.join(plan.backends)}")
    print(f"type inference alone  {inferred - start:.2f} s")
    print(f"planning, all of it   {end - inferred:.2f} s")
    for name, nbytes in memory.arenas.items():
        print(
            f"arena {name}: {nbytes} bytes, {nbytes / memory.lower_bound[name]:.3f} x lower bound"
        )


if __name__ == "__main__":
    main()
