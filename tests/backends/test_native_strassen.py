"""Strassen's products, as 1x1 convolutions and as matrix products, over odd shapes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mnnpy import Session
from mnnpy.backends.numba_cpu.conv_strassen import ConvStrassen
from mnnpy.backends.numba_cpu.matmul_strassen import MatMulStrassen
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, run_kernel
from tests.pairwise import Case, pairwise

BACKEND = load_backend("numba")
LANES = 16
"""A multiple of every vector's lanes."""

CONVOLUTIONS = {
    "batch": (1, 2, 3),
    "c": (2 * LANES, 4 * LANES, 16 * LANES),
    "k": (2 * LANES - 5, 3 * LANES, 6 * LANES, 14 * LANES + 3),
    "height": (2, 3, 7, 8, 13, 16),
    "width": (1, 2, 7, 15, 29, 300),
    "strides": ((1, 1), (2, 2), (1, 3)),
    "behind": (None, act.Relu(), ew.Add()),
    "biased": (False, True),
    "halo": (0, 2),
}

PRODUCTS = {
    "batch": ((1,), (3,), (2, 2)),
    "m": (14, 15, 33, 64, 197),
    "k": (2 * LANES, 6 * LANES),
    "n": (2 * LANES, 4 * LANES, 12 * LANES),
    "behind": (None, act.Relu(), ew.Add()),
    "biased": (False, True),
}


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


def pixels(case: Case) -> tuple[int, int]:
    high, wide = case["strides"]
    return (case["height"] - 1) // high + 1, (case["width"] - 1) // wide + 1


@pytest.mark.parametrize("case", pairwise(CONVOLUTIONS, lambda c: pixels(c)[0] > 1), ids=shown)
def test_odd_shapes_of_convolutions(case: Case) -> None:
    rng = np.random.default_rng(0)
    shape = (case["batch"], case["c"], case["height"], case["width"])
    x = rng.standard_normal(shape, dtype=np.float32)
    w = rng.standard_normal((case["k"], case["c"], 1, 1), dtype=np.float32)
    b = rng.standard_normal((case["k"],), dtype=np.float32)
    read = ("x", "w", "b") if case["biased"] else ("x", "w")
    nodes = [Node("conv", Conv(strides=case["strides"]), read, ("y",))]
    made = (case["batch"], case["k"], *pixels(case))
    _check(ConvStrassen.scheme, nodes, {"x": x, "w": w, "b": b}, made, case)


@pytest.mark.parametrize("case", pairwise(PRODUCTS, lambda _: True), ids=shown)
def test_odd_shapes_of_products(case: Case) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((*case["batch"], case["m"], case["k"]), dtype=np.float32)
    w = rng.standard_normal((case["k"], case["n"]), dtype=np.float32)
    b = rng.standard_normal((case["n"],), dtype=np.float32)
    nodes = [Node("product", MatMul(), ("x", "w"), ("y" if not case["biased"] else "p",))]
    if case["biased"]:
        nodes.append(Node("bias", ew.Add(), ("p", "b"), ("y",)))
    made = (*case["batch"], case["m"], case["n"])
    _check(MatMulStrassen.scheme, nodes, {"x": x, "w": w, "b": b}, made, case)


def _check(
    scheme: str, nodes: list[Node], arrays: dict[str, Array], made: tuple[int, ...], case: Case
) -> None:
    """Run the region of ``nodes``, which make ``made``, and what is behind them by ``scheme``."""
    if not case["biased"]:
        del arrays["b"]
    constants = set(arrays) - {"x"}
    if isinstance(case["behind"], ew.Add):
        arrays["r"] = np.random.default_rng(1).standard_normal(made, dtype=np.float32)
        nodes.append(Node("behind", case["behind"], ("r", "y"), ("z",)))
    elif case["behind"]:
        nodes.append(Node("behind", case["behind"], ("y",), ("z",)))
    types = {name: type_of(array) for name, array in arrays.items()}
    op: Op = Fused(Graph(tuple(nodes), types, nodes[-1].outputs))
    values = tuple(Value(type_of(a), a if n in constants else None) for n, a in arrays.items())
    task = Task(op, values, op.infer(*values))
    (wanted,) = op.reference(np, *(array.astype(np.float64) for array in arrays.values()))
    found = [
        (
            run_kernel(BACKEND, kernel, config, task, list(arrays.values()), case.get("halo", 0)),
            kernel,
            config,
        )
        for kernel, config in candidates(BACKEND, task)
        if kernel.scheme == scheme
    ]
    assert found
    for result, kernel, config in found:
        worst = np.max(np.abs(result - wanted)) / np.max(np.abs(wanted))
        assert worst <= 2e-6 + kernel.max_error(task, config)


@pytest.mark.parametrize(
    ("op", "shapes", "reason"),
    [
        (Conv(pads=(1,) * 4), ((1, 32, 8, 8), (32, 32, 1, 1)), "without padding"),
        (Conv(pads=(-1,) * 4), ((1, 32, 8, 8), (32, 32, 1, 1)), "without padding"),
        (Conv(strides=(8, 1)), ((1, 32, 8, 8), (32, 32, 1, 1)), "one row"),
        (Conv(), ((1, 32, 8, 8), (32, 32, 3, 3)), "not a 1x1"),
        (Conv(group=2), ((1, 64, 8, 8), (32, 32, 1, 1)), "one group"),
        (Conv(), ((1, 48, 8, 8), (32, 48, 1, 1)), "48 input channels are not two halves"),
        (Conv(), ((1, 32, 8, 8), (4, 32, 1, 1)), "4 output channels"),
        (Conv(), ((1, 32, 1, 8), (32, 32, 1, 1)), "one row"),
        (MatMul(), ((64, 64), (64, 64)), "must not mix"),
        (Gemm(), ((64, 64), (64, 64)), "must not mix"),
        (MatMul(), ((2, 64, 63), (63, 64)), "63 terms"),
        (MatMul(), ((2, 13, 64), (64, 64)), "13 rows are too few"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_refused(op: Op, shapes: tuple[tuple[int, ...], ...], reason: str) -> None:
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    values = (Value(type_of(arrays[0])), Value(type_of(arrays[1]), arrays[1]))
    task = Task(op, values, op.infer(*values))
    kernels = [k for k in BACKEND.kernels(op) if k.scheme in ("conv_strassen", "matmul_strassen")]
    (said,) = (kernel.reject(task, BACKEND.describe()) for kernel in kernels)
    assert said is not None
    assert reason in said


def test_samples_of_a_batch_do_not_mix() -> None:
    """A NaN spreads within its own sample only, whichever scheme runs."""
    x = np.ones((2, 32, 8, 8), np.float32)
    x[0, 3, 1, 1] = np.nan
    w = np.ones((32, 32, 1, 1), np.float32)
    values = (Value(type_of(x)), Value(type_of(w), w))
    task = Task(Conv(), values, Conv().infer(*values))
    for kernel, config in candidates(BACKEND, task):
        found = run_kernel(BACKEND, kernel, config, task, [x, w])
        assert np.isnan(found[0, :, 1, 1]).all()
        assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
def test_plans_of_other_sizes_have_weights_of_their_own(op: str) -> None:
    """A row without a partner needs more weights than pairs do."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 64, 1, 1) if op == "Conv" else (64, 64), dtype=np.float32)
    shape = ("n", 64, "h", "w") if op == "Conv" else ("n", "h", 64)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, ["x", "w"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    others = frozenset({"conv_direct", "matmul_packed", "matmul_panels"})
    constraints = Constraints(forbidden={"*": others})
    session = Session(model.SerializeToString(), "numba", constraints=constraints)
    for height in (28, 29, 28, 37):
        sizes = (1, 64, height, 14) if op == "Conv" else (2, height, 64)
        x = rng.standard_normal(sizes, dtype=np.float32)
        (found,) = session.run(x).values()
        assert any("strassen" in s.choice.scheme for s in session.executable(x).plan.steps)
        matrix = weights.reshape(64, 64).astype(np.float64)
        wanted = np.einsum("kc,nchw->nkhw", matrix, x) if op == "Conv" else x @ matrix
        assert np.max(np.abs(found - wanted)) <= 2e-5 * np.max(np.abs(wanted))
