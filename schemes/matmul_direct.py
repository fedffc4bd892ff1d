"""Matrix product by the array module's own GEMM."""

from __future__ import annotations

from functools import partial

import numpy as np

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.schemes.geometry import in_order


class MatMulDirect(Scheme):
    """a b, transposed as Gemm asks; alpha is applied to the product."""

    name = "matmul_direct"
    operators = (MatMul, Gemm)
    finishes = True

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        a, b = operands(task, buffers)
        y = buffers.outputs[0]
        return in_order([partial(xp.matmul, a, b, out=y), scaling(xp, task, y), buffers.finish(())])

    def reject(self, task: Task) -> str | None:
        if len(task.inputs) > 2 and task.inputs[2] is not None:
            return "the addend is scaled by beta"
        if task.output().shape == ():
            return "a scalar result has no output array to write into"
        return None


def operands(task: Task, buffers: Buffers) -> tuple[Array, Array]:
    """Both factors as the product reads them."""
    a, b = buffers.inputs[:2]
    assert a is not None and b is not None
    if isinstance(task.op, Gemm):
        a = a.T if task.op.transA else a
        b = b.T if task.op.transB else b
    return a, b


def scaling(xp: ArrayModule, task: Task, y: Array) -> Run | None:
    """Gemm's alpha, applied in place."""
    if not isinstance(task.op, Gemm) or task.op.alpha == 1:
        return None
    return partial(xp.multiply, y, np.asarray(task.op.alpha, y.dtype)[()], out=y)
