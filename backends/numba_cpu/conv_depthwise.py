"""Depthwise convolution: the channels of a block in the lanes, a run of pixels in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.convolution_kernel import ConvolutionKernel
from mnnpy.backends.numba_cpu.convolutions import (
    epilogue_of,
    pack_bias,
    pack_depthwise,
    row_choices,
)
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.runtime.contracts import Buffers, Config, Device, Run, Task
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.preinference.regions import split_anchored
from mnnpy.schemes.geometry import ConvGeometry


class ConvDepthwise(ConvolutionKernel):
    """One filter per channel, any kernel, stride and dilation."""

    __slots__ = ()
    scheme = "conv_depthwise"

    def unfit(self, g: ConvGeometry) -> str | None:
        if g.group == g.c == g.k:
            return None
        return f"{g.group} groups, {g.c} channels, {g.k} filters: needs one filter per channel"

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        g = ConvGeometry.of(split_anchored(task).task)
        tallest = 7 if g.strides[1] == 1 else 14
        return tuple((("rows", rows),) for rows in row_choices(g.output[1], tallest, 5))

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        anchored = split_anchored(task)
        w = anchored.task.known(1)
        assert w is not None
        bias = None if anchored.bias is None else task.known(anchored.bias)
        return pack_depthwise(w, self.lanes), pack_bias(bias, len(w), self.lanes)

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        anchored = split_anchored(task)
        epilogue = epilogue_of(task, anchored)
        x, y = buffers.inputs[anchored.source], buffers.outputs[0]
        added = [a for p in epilogue.added if (a := buffers.inputs[p]) is not None]
        assert x is not None
        kernel = DepthwiseKernel(
            ConvGeometry.of(anchored.task),
            Blocked.of(anchored.task.tensor(0), x),
            Blocked.of(task.output(), y),
            tuple(Blocked.of(task.output(), a) for a in added),
            epilogue,
            int(dict(config)["rows"]),
        )
        units = kernel.y.n * kernel.y.blocks * kernel.y.h
        return self.call(kernel.ir(), [x, *buffers.packed, y, *added], units)


@dataclass(frozen=True, slots=True)
class DepthwiseKernel:
    """Everything that the code depends on; one unit is a row of one channel block."""

    g: ConvGeometry
    x: Blocked
    y: Blocked
    residuals: tuple[Blocked, ...]
    epilogue: Epilogue
    rows: int

    def ir(self) -> str:
        module = Module(self.y.lanes)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        pointers = [f.argument("%args", index) for index in range(4 + len(self.residuals))]
        f.loop("%end", lambda unit: self._row(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def _row(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        rest, row = f.divide(unit, self.y.h)
        image, block = f.divide(rest, self.y.blocks)
        *read, target = (*pointers[:3], pointers[3])
        added = [
            row_start(f, pointer, r, image, block, row)
            for pointer, r in zip(pointers[4:], self.residuals, strict=True)
        ]
        start = row_start(f, target, self.y, image, block, row)
        self.put_row(f, (image, block, row), read, start, added)
        clear_halo(f, self.y, start, row)

    def put_row(
        self,
        f: Function,
        place: tuple[Value, Value, Value],
        pointers: Sequence[Value],
        target: Value,
        added: Sequence[Value] = (),
    ) -> None:
        """One row of one channel block, for ``place`` (image, block, row).

        ``pointers`` are the input, weights and bias; ``target`` and ``added`` start at the row.
        """
        g, x, y = self.g, self.x, self.y
        (image, block, row), (source, weights, bias) = place, pointers
        first = (x.halo - g.begin[0]) * x.row + (x.halo - g.begin[1]) * x.lanes
        source = f.at(f.at(source, f.mul(image, x.image)), f.mul(block, x.plane))
        source = f.at(f.at(source, f.mul(row, g.strides[0] * x.row)), first)
        weights = f.at(weights, f.mul(block, g.taps * y.lanes))
        start = f.load_vector(f.at(bias, f.mul(block, y.lanes)))

        def tile(pixels: int, first: Value) -> None:
            moved = f.mul(first, y.lanes)
            seen = f.at(source, f.mul(first, g.strides[1] * x.lanes))
            self._fetch_ahead(f, seen, pixels)
            sums = self._sums(f, seen, weights, start, pixels)
            for pixel, total in enumerate(sums):
                operands = tuple(
                    f.load_vector(f.at(f.at(pointer, moved), pixel * r.lanes))
                    for pointer, r in zip(added, self.residuals, strict=True)
                )
                value = self.epilogue.apply(f, total, operands)
                f.store_vector(value, f.at(f.at(target, moved), pixel * y.lanes))

        full, tail = divmod(y.w, self.rows)
        if full:
            f.loop(full, lambda index: tile(self.rows, f.mul(index, self.rows)))
        if tail:
            tile(tail, str(full * self.rows))

    def _fetch_ahead(self, f: Function, seen: Value, pixels: int) -> None:
        """Bring near what the next row of outputs reads and this one does not."""
        g, x = self.g, self.x
        if max(g.strides) > 2:
            return
        below = ((g.kernel[0] - 1) * g.dilations[0] + 1) * x.row
        for row in range(g.strides[0]):
            for column in range(pixels * g.strides[1]):
                f.prefetch(f.at(seen, below + row * x.row + column * x.lanes))

    def _sums(
        self, f: Function, seen: Value, weights: Value, start: Value, pixels: int
    ) -> list[Value]:
        """Sums over the taps; a column of the input that several taps read is loaded once."""
        g, x = self.g, self.x
        sums = [start] * pixels
        for r in range(g.kernel[0]):
            columns: dict[int, Value] = {}
            for s in range(g.kernel[1]):
                weight = f.load_vector(f.at(weights, (r * g.kernel[1] + s) * x.lanes))
                for pixel in range(pixels):
                    column = pixel * g.strides[1] + s * g.dilations[1]
                    if column not in columns:
                        offset = r * g.dilations[0] * x.row + column * x.lanes
                        columns[column] = f.load_vector(f.at(seen, offset))
                    sums[pixel] = f.fma(columns[column], weight, sums[pixel])
        return sums
