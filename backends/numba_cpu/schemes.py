"""Schemes with compiled loops in place of array code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task, Work
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, FLOAT64, ArrayModule
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.schemes.geometry import ConvGeometry, in_order

_COMPILED: dict[type[Op], str] = {
    act.Relu: "relu",
    act.Clip: "clip",
    act.Sigmoid: "sigmoid",
    act.Tanh: "hyperbolic_tangent",
    act.HardSwish: "hard_swish",
    ew.Add: "add",
    ew.Sub: "subtract",
    ew.Mul: "multiply",
    ew.Div: "divide",
}


class CompiledElementwise(Scheme):
    """One pass over arrays of one shape."""

    name = "elementwise"
    operators = tuple(_COMPILED)

    def reject(self, task: Task) -> str | None:
        y = task.output()
        if y.dtype not in (FLOAT32, FLOAT64):
            return f"{y.dtype} is not float32 or float64"
        if isinstance(task.op, act.Clip):
            bounds = (task.known(1), task.known(2))
            return None if all(b is not None for b in bounds) else "needs two constant bounds"
        same = all(value is not None and value.tensor == y for value in task.inputs)
        return None if same else "inputs are broadcast"

    def inplace(self, task: Task) -> tuple[int, ...]:
        return tuple(
            index
            for index, value in enumerate(task.inputs)
            if value is not None and value.known is None and value.tensor == task.output()
        )

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        from mnnpy.backends.numba_cpu import loops

        loop: Callable[..., None] = getattr(loops, _COMPILED[type(task.op)])
        arrays = [x.reshape(-1) for x in buffers.inputs if x is not None]
        if isinstance(task.op, act.Clip):
            bounds = [_scalar(task, index) for index in (1, 2)]
            return partial(loop, arrays[0], *bounds, buffers.outputs[0].reshape(-1))
        return partial(loop, *arrays, buffers.outputs[0].reshape(-1))


def _scalar(task: Task, index: int) -> Any:
    return np.asarray(task.known(index)).reshape(())[()]


class CompiledDepthwise(Scheme):
    """Depthwise 2-D convolution of one filter per channel, plane by plane."""

    name = "conv_depthwise"
    operators = (Conv,)
    finishes = True

    def reject(self, task: Task) -> str | None:
        g = ConvGeometry.of(task)
        if not g.group == g.c == g.k:
            return f"{g.group} groups, {g.c} channels, {g.k} filters: needs one filter per channel"
        if len(g.spatial) != 2:
            return f"{len(g.spatial)} spatial axes"
        return None if g.dtype in (FLOAT32, FLOAT64) else f"{g.dtype} is not float32 or float64"

    def work(self, task: Task, config: Config) -> Work:
        return Work(task.macs, task.nbytes, 1)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        from mnnpy.backends.numba_cpu import loops

        g = ConvGeometry.of(task)
        x, w = buffers.inputs[:2]
        assert x is not None and w is not None
        convolve = partial(
            loops.depthwise,
            x,
            w.reshape(g.k, *g.kernel),
            buffers.outputs[0],
            g.strides,
            g.dilations,
            g.begin,
        )
        return in_order([convolve, buffers.finish(())])
