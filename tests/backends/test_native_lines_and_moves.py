"""The generated softmax, normalizations, reductions and moves over odd shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnnpy.backends.numba_cpu.conv_transposed import ConvTransposedDirect
from mnnpy.backends.numba_cpu.gather import GatherSlices
from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.runtime.contracts import Buffers, Task
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops import normalization as norm
from mnnpy.runtime.ops import reduction as red
from mnnpy.runtime.ops.blocks import DepthToSpace, SpaceToDepth
from mnnpy.runtime.ops.casting import Cast
from mnnpy.runtime.ops.convolution import ConvTranspose
from mnnpy.runtime.ops.indexing import Gather
from mnnpy.runtime.ops.pooling import GlobalAveragePool, GlobalMaxPool
from mnnpy.runtime.ops.resize import Resize
from mnnpy.runtime.ops.shaping import Transpose
from mnnpy.runtime.ops.slicing import Concat, Expand, Pad, Slice, Split, Tile
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, normal, run_kernel

_LENGTHS = (1, 3, 15, 16, 17, 33, 128, 197, 1000)


def ints(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def softmaxes() -> dict[str, tuple[Op, list[Array]]]:
    cases: dict[str, tuple[Op, list[Array]]] = {}
    for kind in (red.Softmax, red.LogSoftmax):
        for length in _LENGTHS:
            cases[f"{kind.__name__} rows {length}"] = kind(), [normal(3, 5, length)]
        for length, inner in ((3, 1), (21, 5), (21, 17), (8, 16), (7, 100), (1, 3)):
            op = kind(axis=1)
            cases[f"{kind.__name__} columns {length} {inner}"] = op, [normal(2, length, inner)]
        cases[f"{kind.__name__} trailing"] = kind(axis=1, trailing=True), [normal(3, 5, 7)]
        cases[f"{kind.__name__} far"] = kind(), [100 * normal(3, 40) + np.float32(1e4)]
    return cases


def normalizations() -> dict[str, tuple[Op, list[Array]]]:
    cases: dict[str, tuple[Op, list[Array]]] = {}
    for length in _LENGTHS:
        x, scale, bias = normal(7, length), normal(length), normal(1, length)
        cases[f"layer {length}"] = norm.LayerNormalization(), [x, scale, bias]
        cases[f"root mean square {length}"] = norm.RMSNormalization(), [x, scale]
    far = normal(3, 300) + np.float32(100)
    cases["layer far"] = norm.LayerNormalization(), [far, normal(300)]
    x, scale = normal(2, 3, 5, 7), normal(5, 7)
    cases["layer of two axes"] = norm.LayerNormalization(axis=2, epsilon=0.1), [x, scale, scale]
    pictures = (1, 1, 1, 1), (2, 3, 5, 7), (1, 16, 4, 4), (3, 17, 13, 13), (2, 33, 15), (1, 3, 1)
    for shape in pictures:
        arrays = [normal(*shape), normal(shape[1]), normal(shape[1] + 0)]
        cases[f"instance {shape}"] = norm.InstanceNormalization(), arrays
    for shape in ((2, 17, 5, 7), (1, 3, 1, 1), (3, 16, 20)):
        parameters = [normal(shape[1]) for _ in range(3)] + [normal(shape[1]) ** 2]
        cases[f"batch {shape}"] = norm.BatchNormalization(), [normal(*shape), *parameters]
    for c, groups in ((6, 2), (6, 6), (6, 1), (32, 8)):
        x = normal(2, c, 5, 3)
        op = norm.GroupNormalization(groups)
        cases[f"group {c} {groups}"] = op, [x, normal(c), normal(c)]
        cases[f"group {c} {groups} shared"] = op, [x, normal(groups), normal(groups)]
    return cases


def reductions() -> dict[str, tuple[Op, list[Array]]]:
    kinds: tuple[type[red.Reduce], ...] = (
        *(red.ReduceSum, red.ReduceMean, red.ReduceMax, red.ReduceMin),
        *(red.ReduceL1, red.ReduceL2, red.ReduceSumSquare),
    )
    cases: dict[str, tuple[Op, list[Array]]] = {}
    shapes = ((2, 3, 5, 7), (1, 17, 13, 13), (3, 16, 4, 4), (2, 33, 1, 9), (1, 5, 1, 1))
    for place, kind in enumerate(kinds):
        for turn, axes in enumerate(((2, 3), (-1,), (1,), (0,), (1, 2), (0, 1, 2, 3))):
            shape = shapes[(place + turn) % len(shapes)]
            name = f"{kind.__name__} {shape} {axes}"
            cases[name] = kind(keepdims=len(axes) % 2), [normal(*shape), ints(*axes)]
        cases[f"{kind.__name__} all"] = kind(), [normal(100, 33)]
        cases[f"{kind.__name__} of rows"] = kind(), [normal(2, 17, 13), ints(2)]
    for shape in (*shapes, (2, 17, 13), (1, 3, 1)):
        cases[f"global average {shape}"] = GlobalAveragePool(), [normal(*shape)]
        cases[f"global maximum {shape}"] = GlobalMaxPool(), [normal(*shape)]
    return cases


def moves() -> dict[str, tuple[Op, list[Array]]]:
    cases: dict[str, tuple[Op, list[Array]]] = {}
    permuted: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((2, 3), (1, 0)),
        ((16, 16), (1, 0)),
        ((15, 17), (1, 0)),
        ((33, 40), (1, 0)),
        ((1, 100, 4, 20), (0, 2, 1, 3)),
        ((2, 13, 3, 37), (0, 2, 3, 1)),
        ((2, 3, 17, 19), (0, 2, 3, 1)),
        ((2, 17, 19, 3), (0, 3, 1, 2)),
        ((3, 5, 2, 7, 6), (4, 2, 0, 3, 1)),
        ((3, 5, 2, 7, 2), (3, 2, 0, 1, 4)),
        ((5, 1, 7), (1, 2, 0)),
        ((4, 6), (0, 1)),
        ((2, 17, 13), (0, 2, 1)),
        ((1, 16, 33), (0, 2, 1)),
        ((3, 1, 15), (0, 2, 1)),
        ((2, 33, 3, 7), (0, 2, 3, 1)),
    )
    for dtype in ("float32", "int64", "float16", "bool"):
        for shape, perm in permuted:
            x = (10 * normal(*shape)).astype(dtype)
            cases[f"transpose {dtype} {shape} {perm}"] = Transpose(perm), [x]
    x = normal(3, 20, 37)
    cuts = {
        "inside": ([1, 2], [3, 19], [0, 2], [1, 1]),
        "steps": ([0, 1], [20, 37], [1, 2], [3, 2]),
        "backwards": ([-1, -1], [-100, -100], [1, 2], [-1, -1]),
        "one column": ([5], [6], [2], [1]),
    }
    for name, bounds in cuts.items():
        cases[f"slice {name}"] = Slice(), [x, *(ints(*bound) for bound in bounds)]
    for axis in (0, 1, 2):
        cases[f"concat {axis}"] = Concat(axis), [x, 2 * x, 3 * x]
        cases[f"split {axis}"] = Split(1, axis), [x, ints(x.shape[axis])]
    cases["split pieces"] = Split(3, 1), [x, ints(5, 7, 8)]
    cases["concat channels"] = Concat(1), [normal(2, 32, 5), normal(2, 16, 5), normal(2, 3, 5)]
    cases["concat bytes"] = Concat(1), [x > 0, x > 1]
    for shape, target in (((1, 5, 1), (4, 1, 7)), ((3, 1), (3, 100)), ((1,), (2, 17)), ((), (33,))):
        cases[f"expand {shape} {target}"] = Expand(), [normal(*shape), ints(*target)]
    y, five = normal(2, 3, 5), np.array(5, dtype=np.float32)
    cases["pad"] = Pad(), [y, ints(1, 0, 2, 0, 4, 17), five]
    cases["pad axis"] = Pad(), [y, ints(0, 3), np.zeros(1, dtype=np.float32), ints(-1)]
    cases["pad bytes"] = Pad(), [y > 0, ints(0, 0, 1, 0, 0, 1)]
    for mode in ("reflect", "edge", "wrap"):
        for name, shape, pads in (
            ("picture", (2, 17, 5, 7), (0, 0, 1, 2, 0, 0, 3, 1)),
            ("single row", (1, 3, 1, 20), (0, 0, 4, 0, 0, 0, 0, 4)),
            ("cut", (2, 3, 6, 7), (0, 0, 1, -2, 0, 0, -1, 2)),
            ("line", (2, 16, 9), (0, 0, 4, 0, 0, 20)),
            ("every axis", (2, 3, 17), (1, 2, 3, 2, 1, 20)),
        ):
            cases[f"pad {mode} {name}"] = Pad(mode), [normal(*shape), ints(*pads)]
        last = [normal(2, 3, 5, 7), ints(1, 3), np.zeros((), dtype=np.float32), ints(-1)]
        cases[f"pad {mode} axis"] = Pad(mode), last
        cases[f"pad {mode} bytes"] = Pad(mode), [y > 0, ints(0, 1, 1, 0, 2, 1)]
    for axis in (0, 1, -1):
        for count, indices in enumerate(([1], [2, 1, 0], [-1, 0, 2, 2, 1], [[0, 2], [1, 2]])):
            picked = np.array(indices, dtype=np.int32)
            cases[f"gather {axis} {count}"] = Gather(axis), [normal(4, 3, 5), picked]
    for name, shape, axis in (
        ("rows", (40, 7), 0),
        ("elements", (2, 40), 1),
        ("many", (20, 40), 1),
    ):
        scattered = np.random.default_rng(0).integers(-40, 40, 100)
        cases[f"gather {name}"] = Gather(axis), [normal(*shape), scattered]
        cases[f"gather bytes {name}"] = Gather(axis), [normal(*shape) > 0, scattered]
    cases["tile"] = Tile(), [normal(2, 3, 5), ints(2, 1, 3)]
    for mode in ("DCR", "CRD"):
        cases[f"depth to space {mode}"] = DepthToSpace(2, mode), [normal(2, 12, 3, 17)]
        cases[f"space to depth {mode}"] = SpaceToDepth(3, mode), [normal(2, 2, 6, 51)]
    cases["concat nothing"] = Concat(0), [normal(1), normal(0), normal(2)]
    cases["split nothing"] = Split(3, 0), [normal(5, 2), ints(1, 0, 4)]
    cases["long row"] = Concat(0), [normal(50_000), normal(7)]
    return cases


def resizes() -> dict[str, tuple[Op, list[Array]]]:
    modes = (
        *(("nearest", "asymmetric", "floor"), ("nearest", "half_pixel", "round_prefer_floor")),
        *(("nearest", "align_corners", "round_prefer_ceil"), ("nearest", "asymmetric", "simple")),
        *(("linear", mode, "floor") for mode in ("asymmetric", "half_pixel", "align_corners")),
        *(("linear", "pytorch_half_pixel", "floor"), ("cubic", "half_pixel", "floor")),
    )
    cases: dict[str, tuple[Op, list[Array]]] = {}
    none = np.zeros(0, dtype=np.float32)
    for mode, coordinates, nearest in modes:
        op = Resize(mode, coordinates, nearest)
        for factors in ((2, 2), (1, 3), (0.5, 1.7)):
            scales = np.array([1, 1, *factors], dtype=np.float32)
            name = f"resize {mode} {coordinates} {nearest} {factors}"
            cases[name] = op, [normal(2, 17, 6, 7), none, scales]
        sizes = ints(1, 3, 1, 20)
        cases[f"resize {mode} {coordinates} {nearest} sizes"] = (
            op,
            [normal(1, 3, 5, 13), none, none, sizes],
        )
        for factor in (2, 0.7):
            row = [normal(2, 17, 13), none, np.array([1, 1, factor], dtype=np.float32)]
            cases[f"resize {mode} {coordinates} {nearest} rows {factor}"] = op, row
    scales = np.array([0.3, 0.4], dtype=np.float32)
    smooth = Resize("linear", antialias=1, axes=(2, 3))
    cases["resize antialiased"] = smooth, [normal(1, 3, 30, 300), none, scales]
    return cases


def conversions() -> dict[str, tuple[Op, list[Array]]]:
    kinds = ("bool", "uint8", "int8", "int32", "int64", "float32", "float64")
    pairs = [(a, b) for a in kinds for b in kinds if b == "bool" or a != b]
    return {
        f"cast {given} {wanted}": (Cast(wanted), [(3 * normal(31, 199)).astype(given)])
        for given, wanted in pairs
        if given[0] != "f" or wanted[0] in "fb"
    }


def transposed_convolutions() -> dict[str, tuple[Op, list[Array]]]:
    cases: dict[str, tuple[Op, list[Array]]] = {}
    for n, c, k, size, kernel, attributes in (
        (2, 16, 5, (7, 7), (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        (1, 33, 17, (5, 9), (2, 2), {"strides": (2, 2)}),
        (1, 3, 16, (4, 15), (4, 4), {"strides": (2, 2), "pads": (1, 1, 1, 1)}),
        (1, 17, 3, (5, 6), (5, 3), {"strides": (3, 2), "output_padding": (1, 1)}),
        (1, 8, 8, (6, 7), (3, 3), {"pads": (0, 1, 2, 0)}),
        (1, 8, 8, (6, 20), (3, 5), {"dilations": (2, 2), "strides": (1, 3)}),
        (1, 4, 4, (1, 1), (7, 7), {}),
        (1, 4, 4, (3, 40), (4, 4), {"strides": (4, 4)}),
        (1, 4, 4, (3, 5), (3, 3), {"strides": (2, 2), "auto_pad": "SAME_UPPER"}),
        (2, 17, 3, (13,), (4,), {"strides": (2,), "pads": (1, 1)}),
        (1, 16, 33, (7,), (5,), {"strides": (3,), "pads": (0, 2), "output_padding": (1,)}),
        (3, 15, 16, (29,), (16,), {"strides": (8,), "pads": (4, 4)}),
        (1, 3, 1, (14,), (3,), {"dilations": (2,)}),
        (1, 4, 4, (1,), (1,), {}),
    ):
        op = ConvTranspose(**attributes)  # type: ignore[arg-type]
        arrays = [normal(n, c, *size), normal(c, k, *kernel), normal(k)]
        cases[f"transposed {c} {k} {size} {kernel} {attributes}"] = op, arrays
    return cases


CASES = {
    **softmaxes(),
    **normalizations(),
    **reductions(),
    **moves(),
    **resizes(),
    **conversions(),
    **transposed_convolutions(),
}


@pytest.mark.parametrize("name", CASES)
def test_odd_shapes(name: str) -> None:
    op, arrays = CASES[name]
    met = _errors(op, arrays)
    assert met, "no generated kernel takes it"
    assert max(met) <= 1e-5, f"off by {max(met):.1e}"


def _spoilable(op: Op, x: Array) -> bool:
    """Whether there is room for three; the reference spreads them to what interpolates nearby."""
    return x.dtype == np.float32 and x.size > 16 and getattr(op, "mode", "") not in SMOOTH


@pytest.mark.parametrize("index", [-5, 4, 1 << 40])
def test_indices_out_of_range_are_an_error(index: int) -> None:
    """Every time, and the others are gathered."""
    x, indices = normal(4, 3), np.array([3, index, -4])
    y = np.zeros((3, 3), dtype=np.float32)
    task = _task(Gather(0), [x, indices])
    buffers = Buffers((x, indices), (y,), np.zeros(0, dtype=np.uint8))
    run = GatherSlices(host_jit()).bind(task, (), buffers)
    for _ in range(2):
        with pytest.raises(IndexError, match=r"outside of \[-4, 4\)"):
            run()
    np.testing.assert_array_equal(y[[0, 2]], x[[3, 0]])
    indices[1] = 1
    run()
    np.testing.assert_array_equal(y, x[[3, 1, 0]])


SMOOTH = ("linear", "cubic")
SPOILABLE = [name for name, (op, arrays) in CASES.items() if _spoilable(op, arrays[0])]


@pytest.mark.parametrize("name", SPOILABLE[::3])
def test_nan_and_infinity_are_kept(name: str) -> None:
    op, arrays = CASES[name]
    x = arrays[0].copy()
    x.reshape(-1)[[0, x.size // 3, -1]] = np.nan, np.inf, -np.inf
    backend = load_backend("numba")
    task = _task(op, [x, *arrays[1:]])
    with np.errstate(all="ignore"):
        (wanted, *_) = op.reference(np, x, *arrays[1:])
    for kernel, config in candidates(backend, task):
        found = run_kernel(backend, kernel, config, task, [x, *arrays[1:]])
        message = kernel.scheme
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=message)


def _task(op: Op, arrays: list[Array]) -> Task:
    known = not isinstance(op, Concat)
    values = tuple(
        Value(type_of(array), array if index and known else None)
        for index, array in enumerate(arrays)
    )
    return Task(op, values, op.infer(*values)[: getattr(op, "num_outputs", 1)])


def _unread(op: Op, arrays: list[Array]) -> list[Array]:
    """Inputs as memory holds them when a kernel is bound: those that decide a shape are not fed."""
    return [a * 0 if index in op.shape_inputs else a for index, a in enumerate(arrays)]


def _errors(op: Op, arrays: list[Array]) -> list[float]:
    """Largest error of every kernel, relative to the largest output."""
    backend, task = load_backend("numba"), _task(op, arrays)
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    wanted: Any = op.reference(np, *wide)[0]
    errors = []
    for kernel, config in candidates(backend, task):
        for halo in (0, 1):
            found = run_kernel(backend, kernel, config, task, _unread(op, arrays), halo)
            if wanted.dtype.kind != "f":
                assert (found == wanted).all(), kernel.scheme
                errors.append(0.0)
                continue
            far = np.max(np.abs(found.astype(np.float64) - wanted))
            errors.append(float(far / max(float(np.max(np.abs(wanted))), 1e-6)))
    return errors


@pytest.mark.parametrize("attributes", [{"output_shape": (8, 8)}, {"pads": (1, 1, 1, 1)}], ids=str)
def test_transposed_convolutions_share_weights_whatever_the_size(attributes: Any) -> None:
    """Plans for other shapes take what the first one packed."""
    op, w = ConvTranspose(strides=(2, 2), **attributes), normal(16, 5, 3, 3)
    first, *others = (
        ConvTransposedDirect(host_jit()).pack(
            _task(op, [normal(1, 16, size, size), w]), (("rows", 1),)
        )
        for size in (1, 4, 5)
    )
    for packed in others:
        for given, wanted in zip(packed, first, strict=True):
            np.testing.assert_array_equal(given, wanted)
