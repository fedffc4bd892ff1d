"""Strassen's matrix product: seven half-size products for eight, recursively.

Source: V. Strassen, 1969, in Winograd's form with fifteen additions; the rule for when another
level pays is the one of MNN (Jiang et al., MLSys 2020).
"""

from __future__ import annotations

from functools import partial

from mnnpy.runtime.contracts import Buffers, Config, Run, Scheme, Task
from mnnpy.runtime.devices import Work
from mnnpy.runtime.graph.types import Array, ArrayModule
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.schemes.geometry import in_order, is_float, rounding, take
from mnnpy.schemes.matmul_direct import operands, scaling

_MAX_LEVELS = 3


class MatMulStrassen(Scheme):
    """a b of two matrices, split ``levels`` times; odd rows and columns are done directly."""

    name = "matmul_strassen"
    operators = (MatMul, Gemm)
    finishes = True

    def reject(self, task: Task) -> str | None:
        if len(task.inputs) > 2 and task.inputs[2] is not None:
            return "the addend is scaled by beta"
        if task.tensor(0).rank != 2 or task.tensor(1).rank != 2:
            return "takes two matrices"
        if not is_float(task.output().dtype):
            return f"{task.output().dtype} is not a plain float"
        if not saves(*sizes(task)):
            m, k, n = sizes(task)
            return f"one level adds more than it saves at {m}x{k}x{n}"
        return None

    def configs(self, task: Task, grain_nbytes: int) -> tuple[Config, ...]:
        m, k, n = sizes(task)
        configs: list[Config] = []
        for level in range(1, _MAX_LEVELS + 1):
            if not saves(m, k, n):
                break
            configs.append((("levels", level),))
            m, k, n = m // 2, k // 2, n // 2
        return tuple(configs)

    def work(self, task: Task, config: Config) -> Work:
        m, k, n = sizes(task)
        levels = int(dict(config)["levels"])
        macs, moved = strassen_work(m, k, n, levels)
        return Work(macs, task.nbytes + moved * task.output().dtype.itemsize, 7**levels)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        m, k, n = sizes(task)
        return scratch_elements(m, k, n, int(dict(config)["levels"])) * task.output().dtype.itemsize

    def max_error(self, task: Task, config: Config) -> float:
        return 1e-6 * 4.0 ** int(dict(config)["levels"]) * rounding(task.output().dtype)

    def bind(self, xp: ArrayModule, task: Task, config: Config, buffers: Buffers) -> Run:
        a, b = operands(task, buffers)
        y = buffers.outputs[0]
        elements = scratch_elements(*sizes(task), int(dict(config)["levels"]))
        scratch, _ = take(buffers.workspace, 0, (elements,), y.dtype)
        levels = int(dict(config)["levels"])
        runs = strassen(xp, a, b, y, scratch, levels)
        return in_order([*runs, scaling(xp, task, y), buffers.finish(())])


def sizes(task: Task) -> tuple[int, int, int]:
    """m, k, n of the product."""
    rows, columns = (int(dim) for dim in task.tensor(0).shape)
    if isinstance(task.op, Gemm) and task.op.transA:
        rows, columns = columns, rows
    return rows, columns, int(task.output().shape[-1])


def saves(m: int, k: int, n: int) -> bool:
    """Whether one more level saves more multiplications than it adds additions."""
    mh, kh, nh = m // 2, k // 2, n // 2
    return (
        m * n * k - 7 * mh * nh * kh > 4 * mh * kh + 4 * nh * kh + 7 * mh * nh
        and min(mh, kh, nh) > 0
    )


def strassen_work(m: int, k: int, n: int, levels: int) -> tuple[int, int]:
    """Multiply-adds of the products and elements moved by the additions."""
    if levels == 0:
        return m * k * n, 0
    mh, kh, nh = m // 2, k // 2, n // 2
    macs, moved = strassen_work(mh, kh, nh, levels - 1)
    moved = 7 * moved + 3 * (4 * mh * kh + 4 * kh * nh + 7 * mh * nh)
    odd = m * k * n - 8 * mh * kh * nh
    return 7 * macs + odd, moved


def scratch_elements(m: int, k: int, n: int, levels: int) -> int:
    """Elements of scratch: one sum of each factor and one product per level."""
    total = 0
    for _ in range(levels):
        m, k, n = m // 2, k // 2, n // 2
        total += m * k + k * n + m * n
    return total


def strassen(
    xp: ArrayModule, a: Array, b: Array, y: Array, scratch: Array, levels: int
) -> list[Run]:
    """Work for y = a b; ``scratch`` holds ``scratch_elements(m, k, n, levels)`` elements."""
    if levels == 0:
        return [partial(xp.matmul, a, b, out=y)]
    m, k, n = a.shape[0] // 2, a.shape[1] // 2, b.shape[1] // 2
    s = scratch[: m * k].reshape(m, k)
    t = scratch[m * k : m * k + k * n].reshape(k, n)
    p = scratch[m * k + k * n : m * k + k * n + m * n].reshape(m, n)
    rest = scratch[m * k + k * n + m * n :]
    a11, a12, a21, a22 = _quarters(a, m, k)
    b11, b12, b21, b22 = _quarters(b, k, n)
    y11, y12, y21, y22 = _quarters(y, m, n)

    def plus(left: Array, right: Array, out: Array) -> Run:
        return partial(xp.add, left, right, out=out)

    def minus(left: Array, right: Array, out: Array) -> Run:
        return partial(xp.subtract, left, right, out=out)

    def product(left: Array, right: Array, out: Array) -> list[Run]:
        return strassen(xp, left, right, out, rest, levels - 1)

    return [
        *(minus(a11, a21, s), minus(b22, b12, t), *product(s, t, y21)),
        *(plus(a21, a22, s), minus(b12, b11, t), *product(s, t, y22)),
        *(minus(s, a11, s), minus(b22, t, t), *product(s, t, y12)),
        *(minus(a12, s, s), *product(s, b22, y11)),
        *product(a11, b11, p),
        *(plus(p, y12, y12), plus(y12, y21, y21), plus(y12, y22, y12)),
        *(plus(y21, y22, y22), plus(y12, y11, y12)),
        *(minus(t, b21, t), *product(a22, t, y11), minus(y21, y11, y21)),
        *(*product(a12, b21, y11), plus(p, y11, y11)),
        *_odd_edges(xp, a, b, y, p),
    ]


def _quarters(x: Array, rows: int, columns: int) -> tuple[Array, Array, Array, Array]:
    return (
        x[:rows, :columns],
        x[:rows, columns : 2 * columns],
        x[rows : 2 * rows, :columns],
        x[rows : 2 * rows, columns : 2 * columns],
    )


def _odd_edges(xp: ArrayModule, a: Array, b: Array, y: Array, part: Array) -> list[Run]:
    """What the halves leave out: a last column of a, a last row of a, a last column of b."""
    m, n = part.shape
    k = a.shape[1] // 2
    runs: list[Run] = []
    if a.shape[1] > 2 * k:
        column, row = a[:, 2 * k :], b[2 * k :]
        for i, j in ((0, 0), (0, n), (m, 0), (m, n)):
            target = y[i : i + m, j : j + n]
            runs.append(partial(xp.multiply, column[i : i + m], row[:, j : j + n], out=part))
            runs.append(partial(xp.add, target, part, out=target))
    if y.shape[0] > 2 * m:
        runs.append(partial(xp.matmul, a[2 * m :], b, out=y[2 * m :]))
    if y.shape[1] > 2 * n:
        last = y[: 2 * m, 2 * n :]
        runs.append(partial(xp.matmul, a[: 2 * m], b[:, 2 * n :], out=last))
    return runs
