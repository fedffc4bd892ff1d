"""Regions of convolutions one behind the other, for the kernels that run them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.runtime.contracts import Kernel, Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value, type_of
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.elementwise import Add
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, run_kernel


@dataclass(frozen=True, slots=True)
class Stage:
    """A convolution, the shape of its weights, and what follows it."""

    conv: Conv
    weights: tuple[int, ...]
    behind: Op | None = None


def chain_task(
    x: tuple[int, ...], stages: Sequence[Stage], biased: bool, shortcut: bool = False
) -> tuple[Task, list[Array]]:
    """The region and what it reads; an ``Add`` adds a tensor of its own, or the chain's input."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    arrays = {"x": normal(*x)}
    constants: set[str] = set()
    nodes: list[Node] = []
    running, shape = "x", x
    for index, stage in enumerate(stages):
        weights, bias = f"w{index}", f"b{index}"
        arrays[weights] = normal(*stage.weights)
        if biased:
            arrays[bias] = normal(stage.weights[0])
        constants |= {weights, bias}
        read = (running, weights, bias if biased else None)
        given = TensorType(FLOAT32, shape), type_of(arrays[weights])
        (made,) = stage.conv.infer(*(Value(known) for known in given))
        shape = tuple(int(dim) for dim in made.shape)
        running = f"y{index}"
        nodes.append(Node(f"conv{index}", stage.conv, read, (running,)))
        if stage.behind is None:
            continue
        others: tuple[str, ...] = ()
        if isinstance(stage.behind, Add):
            others = ("x",) if shortcut else (f"r{index}",)
            arrays.setdefault(others[0], normal(*shape))
        nodes.append(Node(f"act{index}", stage.behind, (*others, running), (f"z{index}",)))
        running = f"z{index}"
    types = {name: type_of(array) for name, array in arrays.items()}
    region = Fused(Graph(tuple(nodes), types, (running,)))
    values = tuple(
        Value(type_of(array), array if name in constants else None)
        for name, array in arrays.items()
    )
    return Task(region, values, region.infer(*values)), list(arrays.values())


def kernel_for(task: Task, scheme: str) -> Kernel:
    """The Numba backend's kernel of a scheme for a region."""
    kernels = load_backend("numba").kernels(task.op)
    return next(kernel for kernel in kernels if kernel.scheme == scheme)


def computed(task: Task, arrays: list[Array], scheme: str, halo: int = 0) -> Array:
    """What a scheme makes of a region, as chosen for one thread."""
    backend, kernel = load_backend("numba"), kernel_for(task, scheme)
    device = backend.describe().limited(1)
    assert kernel.reject(task, device) is None
    (config,) = kernel.configs(task, device)
    return run_kernel(backend, kernel, config, task, arrays, halo)


def assert_close(found: Array, task: Task, arrays: list[Array]) -> None:
    """Within rounding of the region's reference in double precision."""
    (wanted,) = task.op.reference(np, *(array.astype(np.float64) for array in arrays))
    assert np.max(np.abs(found - wanted)) <= 5e-6 * max(np.max(np.abs(wanted)), 1e-6)
