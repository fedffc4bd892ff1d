"""Attention per tile of queries: scores, softmax and the weighted sum of values in near cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnnpy.backends.numba_cpu.attention_region import AttentionRegion, read_attention
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.lines import Line, Place, load_all, store_all, total
from mnnpy.backends.numba_cpu.native import NativeSequence
from mnnpy.backends.numba_cpu.products import Finish, Terms, Weights, product_tile
from mnnpy.backends.numba_cpu.strided import Strided
from mnnpy.backends.numba_cpu.strided_copy import StridedCopy
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.backends.numba_cpu.vector_math import exp
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.dims import Shape
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.graph.types import FLOAT32
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.fused import Fused

_SCORES_FLOATS = 1 << 17
"""The scores of one tile of queries lie on the stack of the thread that computes them."""

_TALLEST = 16
"""Queries of one tile."""

_EXPONENTIAL_MACS = 20
"""Multiply-adds that take as long as an exponential."""


class AttentionTiles(NativeKernel):
    """Two products with a softmax between them; the scores never leave the near cache.

    Keys are transposed into the workspace first. Queries, values and the result are read and
    written where they lie, be it as inner axes of a larger tensor.
    """

    __slots__ = ()
    scheme = "attention_tiles"
    operators = (Attention,)

    def carries(self, region: Graph) -> bool:
        return read_attention(region) is not None

    def reject(self, task: Task, device: Device) -> str | None:
        region, positions = _read(task)
        if len(task.outputs) > 1:
            return "gives more than the result"
        if any(v is not None and v.tensor.dtype != FLOAT32 for v in task.inputs):
            return "not everything is float32"
        if sum(v is not None for v in task.inputs) != sum(p is not None for p in positions):
            return "there are keys of former calls"
        sizes, mask = _Sizes.of(task, self.lanes), positions[3]
        reason = _unfit_operator(region.op) or _unfit(sizes)
        return reason or (None if mask is None else _unfit_mask(task.tensor(mask).shape, sizes))

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        queries = _Sizes.of(task, self.lanes).queries
        rows, _ = choose_tile(device, self.lanes, queries, 1, (1,), _TALLEST)
        return ((("rows", rows),),)

    def work(self, task: Task, config: Config) -> Work:
        sizes = _Sizes.of(task, self.lanes)
        scores = sizes.matrices * sizes.queries * sizes.keys
        products = scores * (sizes.q.shape[-1] + sizes.v.shape[-1])
        return Work(products + scores * _EXPONENTIAL_MACS, task.nbytes, 2)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        return 4 * math.prod(_Sizes.of(task, self.lanes).k.shape)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        region, positions = _read(task)
        q, k, v, mask = (None if p is None else buffers.inputs[p] for p in positions)
        assert k is not None
        sizes = _Sizes.of(task, self.lanes)
        keys = buffers.workspace[: self.workspace_nbytes(task, config)].view(np.float32)
        permuted = k if region.permuted[1] is None else k.transpose(region.permuted[1])
        target = keys.reshape(sizes.k.shape)[..., : sizes.keys]
        copy = StridedCopy.between(4 * self.lanes, target, permuted.swapaxes(-1, -2))
        kernel = _Attention(self.lanes, sizes, int(dict(config)["rows"]))
        arrays = [a for a in (q, keys, v, buffers.outputs[0], mask) if a is not None]
        transposed = self.call(copy.ir(), [target, k], copy.units)
        return NativeSequence((transposed, self.call(kernel.ir(), arrays, kernel.units)))


def _read(task: Task) -> tuple[AttentionRegion, tuple[int | None, ...]]:
    """The region, and which inputs of the task are q, k, v and the mask."""
    if isinstance(task.op, Fused):
        region = read_attention(task.op.graph)
        assert region is not None
        names = list(task.op.graph.inputs)
        return region, tuple(None if n is None else names.index(n) for n in region.inputs)
    assert isinstance(task.op, Attention)
    masked = len(task.inputs) > 3 and task.inputs[3] is not None
    return AttentionRegion(task.op, (), (), (None,) * 4), (0, 1, 2, 3 if masked else None)


def _unfit_operator(op: Attention) -> str | None:
    """Why the operator's attributes are not generated."""
    if op.is_causal or op.left_window_size >= 0 or op.right_window_size >= 0:
        return "only some keys are seen"
    return "scores are capped" if op.softcap else None


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How everything lies.

    Parameters
    ----------
    k : transposed keys (..., features, keys) in the workspace, rows filled up to whole vectors.
    """

    q: Strided
    k: Strided
    v: Strided
    y: Strided
    mask: Strided | None
    keys: int
    scale: float

    @staticmethod
    def of(task: Task, lanes: int) -> _Sizes:
        region, positions = _read(task)
        shapes = [
            () if p is None else tuple(int(dim) for dim in task.tensor(p).shape) for p in positions
        ]
        permuted_q, permuted_k, permuted_v, permuted_y = region.permuted
        q, v = Strided.of(shapes[0], permuted_q), Strided.of(shapes[2], permuted_v)
        *batch, keys, features = Strided.of(shapes[1], permuted_k).shape
        k = Strided.of((*batch, features, -(-keys // lanes) * lanes))
        stored = tuple(int(dim) for dim in task.output().shape)
        back = None if permuted_y is None else [int(axis) for axis in np.argsort(permuted_y)]
        scores = (*q.shape[:-1], keys)
        mask = None if positions[3] is None else Strided.of(shapes[3]).broadcast(scores)
        scale = features**-0.5 if region.op.scale is None else region.op.scale
        return _Sizes(q, k, v, Strided.of(stored, back), mask, keys, scale)

    @property
    def matrices(self) -> int:
        return math.prod(self.q.shape[:-2])

    @property
    def queries(self) -> int:
        return self.q.shape[-2]


def _unfit(sizes: _Sizes) -> str | None:
    q, k, v, y = sizes.q, sizes.k, sizes.v, sizes.y
    if len(q.shape) != 4:
        return "heads stand side by side"
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return "heads share keys"
    if 0 in (*q.shape, *k.shape, *v.shape):
        return "nothing to compute"
    if any(operand.pitches[-1] != 1 for operand in (q, v, y)):
        return "rows are not contiguous"
    return "too many keys for a stack" if sizes.keys * _TALLEST > _SCORES_FLOATS else None


def _unfit_mask(shape: Shape, sizes: _Sizes) -> str | None:
    """Why a mask is not one number for each key; a shorter one hides the keys behind it."""
    scores = (*sizes.q.shape[:-1], sizes.keys)
    within = zip(reversed(shape), reversed(scores), strict=False)
    fits = len(shape) <= len(scores) and all(dim in (1, size) for dim, size in within)
    return None if fits and shape[-1:] == scores[-1:] else f"mask {shape} of scores {scores}"


@dataclass(frozen=True, slots=True)
class _Attention:
    """Everything that the code depends on; one unit is a tile of queries of one head."""

    lanes: int
    sizes: _Sizes
    rows: int

    @property
    def tiles(self) -> int:
        return -(-self.sizes.queries // self.rows)

    @property
    def units(self) -> int:
        return self.sizes.matrices * self.tiles

    @property
    def pitch(self) -> int:
        """Floats of one row of scores, filled up with minus infinity."""
        return self.sizes.k.shape[-1]

    def ir(self) -> str:
        s, module = self.sizes, Module(self.lanes)
        last_rows = s.queries - (self.tiles - 1) * self.rows
        for rows in sorted({self.rows, last_rows}):
            self._add_products(module, rows)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        q, k, v, y = (f.argument("%args", index) for index in range(4))
        mask = y if s.mask is None else f.argument("%args", 4)
        scores, shares = f.scratch(self.rows * self.pitch), f.scratch(self.rows * self.lanes)

        def unit(index: Value) -> None:
            head, tile = f.divide(index, self.tiles)
            first = f.mul(tile, self.rows)

            def rows_of(operand: Strided, base: Value) -> Value:
                return f.at(operand.matrix(f, base, head), f.mul(first, operand.row))

            at = {
                "q": rows_of(s.q, q),
                "k": s.k.matrix(f, k, head),
                "v": s.v.matrix(f, v, head),
                "y": rows_of(s.y, y),
                "mask": mask if s.mask is None else rows_of(s.mask, mask),
                "scores": scores,
                "shares": shares,
            }
            if last_rows == self.rows:
                self._tile(f, self.rows, at)
                return
            last, others = (f.compare(how, tile, self.tiles - 1) for how in ("eq", "ne"))
            f.when(last, lambda: self._tile(f, last_rows, at))
            f.when(others, lambda: self._tile(f, self.rows, at))

        f.loop("%end", unit, start="%begin")
        f.finish()
        return str(module)

    def _add_products(self, module: Module, rows: int) -> None:
        """Functions for a vector of scores, and for a vector of the result, of some queries."""
        s, lanes = self.sizes, self.lanes
        features, columns = s.q.shape[-1], s.v.shape[-1]
        for count in _widths(s.keys, lanes):
            terms = Terms(1, 0, features, features, ((0,), (0,)), s.q.row)
            product_tile(
                module,
                f"score{rows}_{count}",
                rows,
                1,
                terms,
                (self.pitch, lanes),
                False,
                self._shape_scores(count),
                ["mask"],
                None,
                Weights(s.k.row),
            )

        def shared(f: Function, value: Value, row: int, v: int) -> Value:
            return f.arithmetic("fmul", value, f.load_vector(f.at("%shares", row * lanes)))

        for count in _widths(columns, lanes):
            terms = Terms(1, 0, s.keys, s.keys, ((0,), (0,)), self.pitch)
            product_tile(
                module,
                f"weigh{rows}_{count}",
                rows,
                1,
                terms,
                (s.y.row, lanes),
                False,
                shared,
                ["shares"],
                count,
                Weights(s.v.row, False, count),
            )

    def _shape_scores(self, count: int) -> Finish:
        """Scale and mask; minus infinity behind the last of ``count`` keys."""
        mask = self.sizes.mask

        def finish(f: Function, value: Value, row: int, v: int) -> Value:
            value = f.arithmetic("fmul", value, f.constant(self.sizes.scale))
            if mask is not None:
                place = f.at("%mask", row * mask.row)
                added = f.load_lanes(place, count) if mask.pitches[-1] else f.broadcast(place)
                value = f.arithmetic("fadd", value, added)
            if count == f.lanes:
                return value
            there = ", ".join(f"i1 {int(lane < count)}" for lane in range(f.lanes))
            return f.choose(f"<{there}>", value, f.constant(float("-inf")))

        return finish

    def _tile(self, f: Function, rows: int, at: Mapping[str, Value]) -> None:
        s, lanes, none = self.sizes, self.lanes, at["scores"]

        def call(name: str, *pointers: Value) -> None:
            f.call(name, *(("ptr", pointer) for pointer in pointers))

        def score(first: Value, count: int) -> None:
            k, scores = f.at(at["k"], first), f.at(at["scores"], first)
            mask = f.at(at["mask"], first if s.mask is not None and s.mask.pitches[-1] else 0)
            call(f"score{rows}_{count}", at["q"], k, none, scores, mask)

        def normalise(row: Value) -> None:
            share = self._softmax(f, f.at(at["scores"], f.mul(row, self.pitch)))
            f.store_vector(share, f.at(at["shares"], f.mul(row, lanes)))

        def weigh(first: Value, count: int) -> None:
            v, y = f.at(at["v"], first), f.at(at["y"], first)
            call(f"weigh{rows}_{count}", at["scores"], v, none, y, at["shares"])

        self._each_vector(f, s.keys, score)
        f.loop(rows, normalise)
        self._each_vector(f, s.v.shape[-1], weigh)

    def _each_vector(self, f: Function, columns: int, visit: Callable[[Value, int], None]) -> None:
        full, tail = divmod(columns, self.lanes)
        if full:
            f.loop(full, lambda index: visit(f.mul(index, self.lanes), self.lanes))
        if tail:
            visit(str(full * self.lanes), tail)

    def _softmax(self, f: Function, scores: Value) -> Value:
        """Exponentials in place; returns one over their sum, zero where no key is seen."""
        line = Line.row(self.lanes, self.pitch)
        top = line.fold(f, float("-inf"), lambda p: load_all(f, scores, p), Function.larger)
        unseen = f.comparison("oeq", top, f.constant(float("-inf")))
        top = f.choose(unseen, f.constant(0.0), top)

        def powers(places: Sequence[Place]) -> list[Value]:
            shifted = [f.arithmetic("fsub", v, top) for v in load_all(f, scores, places)]
            found = [exp(f, value) for value in shifted]
            store_all(f, found, scores, places)
            return found

        share = f.arithmetic("fdiv", f.constant(1.0), line.fold(f, 0.0, powers, total))
        return f.choose(unseen, f.constant(0.0), share)


def _widths(columns: int, lanes: int) -> list[int]:
    """Lanes that vectors over a row fill."""
    return sorted({count for count in (min(columns, lanes), columns % lanes) if count})
