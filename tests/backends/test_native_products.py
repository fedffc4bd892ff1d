"""The generated matrix products and attention over odd shapes, against the reference in float64.

No operand starts at a multiple of a vector: it may be a view into another one.
"""

from __future__ import annotations

import numpy as np
import pytest

from mnnpy.backends import host_memory
from mnnpy.backends.numba_cpu.attention import AttentionTiles
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.graph import Graph, Node
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import activation as act
from mnnpy.runtime.ops import elementwise as ew
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, run_kernel
from tests.pairwise import Case, pairwise

SIZES = (1, 3, 15, 16, 17, 33, 70)

PRODUCTS = {
    "product": ("computed", "constant", "gemm", "gemm transposed"),
    "left": ((), (1,), (2,), (2, 1), (2, 3)),
    "right": ((), (), (1,), (2,), (3,), (1, 3)),
    "m": SIZES,
    "k": SIZES,
    "n": SIZES,
    "epilogue": ("none", "row", "relu", "residual", "residual first", "clip"),
}


def fits_product(case: Case) -> bool:
    if case["product"].startswith("gemm"):
        return case["left"] == case["right"] == ()
    if case["product"] == "constant" and case["right"]:
        return False
    if case["product"] == "computed" and case["epilogue"] == "row":
        return False
    pairs = zip(case["left"][::-1], case["right"][::-1], strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


ATTENTIONS = {
    "batch": (1, 2),
    "heads": (1, 3),
    "queries": (1, 3, 16, 17, 70),
    "keys": SIZES,
    "features": (1, 3, 16, 17, 40),
    "width": (1, 8, 15, 16, 33),
    "mask": ("", "t", "st", "h1t", "b11t", "bhst"),
    "hidden": ("nothing", "keys", "rows"),
    "permuted": ("nothing", "operands", "all"),
    "scale": (None, 0.25),
}


def fits_attention(case: Case) -> bool:
    if case["hidden"] == "rows":
        return "s" in case["mask"]
    return bool(case["mask"]) or case["hidden"] == "nothing"


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("case", pairwise(PRODUCTS, fits_product), ids=shown)
def test_odd_shapes_of_products(case: Case) -> None:
    nodes, arrays = _product(case)
    constants = {"row", "upper"} | (set() if case["product"] == "computed" else {"b"})
    assert _judged(nodes, arrays, constants), "no generated kernel takes this product"


@pytest.mark.parametrize("case", pairwise(ATTENTIONS, fits_attention), ids=shown)
def test_odd_shapes_of_attention(case: Case) -> None:
    nodes, arrays = _attention(case)
    assert _judged(nodes, arrays, set()) == 1


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((), 0), ((1,), 0), ((5,), 1), ((1, 5), 1), ((7, 1), 0), ((7, 5), 0)],
    ids=str,
)
def test_odd_shapes_of_what_gemm_adds(shape: tuple[int, ...], taken: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": normal(rng, 7, 9), "b": normal(rng, 9, 5), "c": normal(rng, *shape)}
    node = Node("gemm", Gemm(), ("a", "b", "c"), ("y",))
    assert _judged([node], arrays, {"b", "c"}) == taken


@pytest.mark.parametrize(
    ("op", "kv_heads", "mask"),
    [
        (Attention(is_causal=1), 4, None),
        (Attention(left_window_size=2), 4, None),
        (Attention(softcap=2.0), 4, None),
        (Attention(), 2, None),
        (Attention(), 4, (5, 6)),
        (Attention(), 4, (5, 1)),
        (Attention(), 4, (1,)),
        (Attention(), 4, (1, 2, 4, 5, 7)),
    ],
    ids=str,
)
def test_attention_that_is_left_to_others(
    op: Attention, kv_heads: int, mask: tuple[int, ...] | None
) -> None:
    shapes = [(2, 4, 5, 8), (2, kv_heads, 7, 8), (2, kv_heads, 7, 8)]
    shapes += [] if mask is None else [mask]
    values = tuple(Value(type_of(np.zeros(shape, np.float32))) for shape in shapes)
    task = Task(op, values, op.infer(*values)[:1])
    device = load_backend("numba").describe()
    assert AttentionTiles(host_jit()).reject(task, device) is not None


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers that start one float behind a cache line."""
    content = rng.standard_normal(shape, dtype=np.float32)
    memory = host_memory.aligned_bytes(content.nbytes + 4)[4:]
    array = host_memory.array_view(memory, 0, shape, content.dtype)
    array[...] = content
    return array


def _judged(nodes: list[Node], arrays: dict[str, Array], constants: set[str]) -> int:
    """How many generated kernels take the operator or region; all of them must be right."""
    values = tuple(
        Value(type_of(array), array if name in constants else None)
        for name, array in arrays.items()
    )
    types = {name: type_of(array) for name, array in arrays.items()}
    op: Op = nodes[0].op
    if len(nodes) > 1:
        op = Fused(Graph(tuple(nodes), types, nodes[-1].outputs))
    task = Task(op, values, op.infer(*values)[:1])
    with np.errstate(invalid="ignore"):  # The reference divides by zero where no key is seen.
        wanted = op.reference(np, *(array.astype(np.float64) for array in arrays.values()))[0]
    met = 0
    for kernel, config in candidates(load_backend("numba"), task):
        found = run_kernel(load_backend("numba"), kernel, config, task, list(arrays.values()))
        worst = np.max(np.abs(found - wanted)) / max(np.max(np.abs(wanted)), 1e-6)
        assert worst <= 5e-6, f"{kernel.scheme} {dict(config)} is off by {worst:.1e}"
        met += 1
    return met


def _product(case: Case) -> tuple[list[Node], dict[str, Array]]:
    """A product with what is behind it."""
    rng, epilogue = np.random.default_rng(0), case["epilogue"]
    m, k, n = case["m"], case["k"], case["n"]
    gemm, transposed = case["product"].startswith("gemm"), case["product"] == "gemm transposed"
    right = (n, k) if transposed else (k, n)
    arrays = {"a": normal(rng, *case["left"], m, k), "b": normal(rng, *case["right"], *right)}
    op = Gemm(transB=int(transposed)) if gemm else MatMul()
    nodes = [Node("product", op, ("a", "b"), ("y",))]
    if epilogue == "row":
        arrays["row"] = normal(rng, n)
        if gemm:
            return [Node("product", op, ("a", "b", "row"), ("y",))], arrays
        nodes.append(Node("added", ew.Add(), ("y", "row"), ("z",)))
    elif epilogue == "relu":
        nodes.append(Node("relu", act.Relu(), ("y",), ("z",)))
    elif epilogue == "clip":
        arrays["upper"] = np.ones(1, dtype=np.float32)
        nodes.append(Node("clip", act.Clip(), ("y", None, "upper"), ("z",)))
    elif epilogue != "none":
        batch = np.broadcast_shapes(case["left"], case["right"])
        arrays["r"] = normal(rng, *batch, m, n)
        operands = ("r", "y") if epilogue == "residual first" else ("y", "r")
        nodes.append(Node("residual", ew.Sub(), operands, ("z",)))
        nodes.append(Node("gelu", act.Gelu(), ("z",), ("g",)))
    return nodes, arrays


def _attention(case: Case) -> tuple[list[Node], dict[str, Array]]:
    """Attention, its operands and perhaps its result as inner axes of (n, length, heads, d)."""
    rng = np.random.default_rng(0)
    b, h, s, t = (case[name] for name in ("batch", "heads", "queries", "keys"))
    sizes = {"q": (s, case["features"]), "k": (t, case["features"]), "v": (t, case["width"])}
    arrays: dict[str, Array] = {}
    nodes: list[Node] = []
    reads: list[str] = []
    for name, (length, features) in sizes.items():
        if case["permuted"] == "nothing":
            arrays[name] = normal(rng, b, h, length, features)
            reads.append(name)
        else:
            arrays[name] = normal(rng, b, length, h, features)
            nodes.append(Node(f"turn {name}", Transpose((0, 2, 1, 3)), (name,), (f"{name}'",)))
            reads.append(f"{name}'")
    if case["mask"]:
        size = {"b": b, "h": h, "s": s, "t": t, "1": 1}
        mask = arrays["mask"] = normal(rng, *(size[axis] for axis in case["mask"]))
        rows, keys = (..., 0, slice(None)), (..., slice(None, None, 3))
        hidden = {"nothing": (..., slice(0)), "keys": keys, "rows": rows}
        mask[hidden[case["hidden"]]] = -np.inf
        reads.append("mask")
    nodes.append(Node("attention", Attention(scale=case["scale"]), tuple(reads), ("y",)))
    if case["permuted"] == "all":
        nodes.append(Node("turn y", Transpose((0, 2, 1, 3)), ("y",), ("y'",)))
    return nodes, arrays
