"""Dense products row by row: convolutions and matrix products as one kernel over product tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnpy.backends.numba_cpu.blocked import Blocked, clear_halo, row_start
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.ir import Function, Module, Value
from mnnpy.backends.numba_cpu.pictures import picture_shape
from mnnpy.backends.numba_cpu.products import LINE, Terms, Weights, lines_ahead, product_tile
from mnnpy.schemes.geometry import ConvGeometry


@dataclass(frozen=True, slots=True)
class Reach:
    """Which ``taps`` along the first axis meet the input of that ``size``, for each output."""

    taps: int
    size: int
    begin: int
    stride: int
    dilation: int

    @staticmethod
    def of(g: ConvGeometry) -> Reach:
        return Reach(g.kernel[0], g.spatial[0], g.begin[0], g.strides[0], g.dilations[0])

    def met(self, outputs: int) -> int:
        """Pairs of an output and a tap that meet the input."""
        firsts = (place * self.stride - self.begin for place in range(outputs))
        starts = (first + tap * self.dilation for first in firsts for tap in range(self.taps))
        return sum(0 <= start < self.size for start in starts)

    def between(self, f: Function, place: Value) -> tuple[Value, Value]:
        """The first tap that does, and the one behind the last."""
        above = f.sub(self.begin, f.mul(place, self.stride))
        below = f.maximum(f.add(above, self.size), 0)
        top, _ = f.divide(f.add(f.maximum(above, 0), self.dilation - 1), self.dilation)
        end, _ = f.divide(f.add(below, self.dilation - 1), self.dilation)
        top, end = f.minimum(top, self.taps), f.minimum(end, self.taps)
        return top, f.maximum(end, top)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a kernel finds its input, in floats.

    Parameters
    ----------
    first : of the terms of output pixel (0, 0), from the start of an image.
    row, pixel : steps from one output row and pixel to the next.
    reach : where taps of the first axis that meet nothing are left out.
    deep : whether the first axis is that of the slices of a volume, which are the images.
    """

    image: int
    first: int
    row: int
    terms: Terms
    reach: Reach | None = None
    deep: bool = False

    @property
    def pixel(self) -> int:
        return self.terms.row_pitch


def blocked_source(g: ConvGeometry, x: Blocked, cut: bool = False) -> Source:
    """A channel-blocked input with a halo; ``cut`` leaves out rows of taps that meet nothing."""
    vertical = tuple(r * g.dilations[0] * x.row for r in range(g.kernel[0]))
    horizontal = tuple(s * g.dilations[1] * x.lanes for s in range(g.kernel[1]))
    pitch = g.strides[1] * x.lanes
    terms = Terms(x.blocks, x.plane, x.lanes, x.last_channels, (vertical, horizontal), pitch, cut)
    first = (x.above - g.begin[0]) * x.row + (x.halo - g.begin[1]) * x.lanes
    return Source(x.image, first, g.strides[0] * x.row, terms, Reach.of(g) if cut else None)


def volume_source(g: ConvGeometry, x: Blocked) -> Source:
    """A sample of a volume with a halo; slices of taps that meet nothing are left out."""
    pitches = (x.slice, x.row, x.lanes)
    steps = zip(g.kernel, g.dilations, pitches, strict=True)
    taps = tuple(tuple(tap * d * pitch for tap in range(k)) for k, d, pitch in steps)
    starts = zip(g.begin, pitches, strict=True)
    first = x.origin - sum(begin * pitch for begin, pitch in starts)
    across = g.strides[2] * x.lanes
    terms = Terms(x.blocks, x.plane, x.lanes, x.last_channels, taps, across, True)
    return Source(g.strides[0] * x.slice, first, g.strides[1] * x.row, terms, Reach.of(g), True)


def planar_source(g: ConvGeometry, shape: Sequence[int]) -> Source:
    """A row-major (n, c, h, w) input with a halo: every channel is a block of its own."""
    _, c, height, width = picture_shape(shape)
    above, halo = (height - g.spatial[0]) // 2, (width - g.spatial[1]) // 2
    vertical = tuple(r * g.dilations[0] * width for r in range(g.kernel[0]))
    horizontal = tuple(s * g.dilations[1] for s in range(g.kernel[1]))
    terms = Terms(c, height * width, 1, 1, (vertical, horizontal), g.strides[1])
    first = (above - g.begin[0]) * width + halo - g.begin[1]
    return Source(c * height * width, first, g.strides[0] * width, terms)


@dataclass(frozen=True, slots=True)
class DenseKernel:
    """Everything that the code depends on; buffers come as (x, w, b, y, *residuals).

    Parameters
    ----------
    rows, vectors : the tile: output pixels by vectors of output channels.
    rows_first : whether a row passes all weights, which stay in a near cache, before the next one;
        else a group's weights pass all rows.
    name : of its tiles, where a module has several of these.
    parts : groups of the convolution, each of whole vectors and with terms of its own.
    """

    source: Source
    y: Blocked
    residuals: tuple[Blocked, ...]
    epilogue: Epilogue
    rows: int
    vectors: int
    rows_first: bool = False
    name: str = "tile"
    parts: int = 1

    @property
    def groups(self) -> int:
        return self.y.blocks // self.vectors

    @property
    def units(self) -> int:
        """One unit is a row of outputs of one group of channel blocks."""
        return self.y.n * self.groups * self.y.h

    @property
    def panel(self) -> int:
        """Floats of the weights of one group."""
        return self.source.terms.count * self.vectors * self.y.lanes

    @property
    def tiles(self) -> int:
        """Tiles of one row."""
        return -(-self.y.w // self.rows)

    @property
    def last_lanes(self) -> int:
        """Lanes that tiles of the last group compute: half where the others hold nothing."""
        half = self.y.lanes // 2
        return half if self.vectors == 1 and self.y.last_channels <= half >= 4 else self.y.lanes

    @property
    def fetched(self) -> int:
        """Lines of the next group's weights per block of terms, shared among this group's tiles."""
        if self.rows_first:
            return 0
        turns = self.source.terms.blocks * self.tiles * self.y.h
        return lines_ahead(self.panel, turns)

    def ir(self) -> str:
        module = Module(self.y.lanes)
        self.add_tiles(module)
        f = Function(module, "run", [("ptr", "args"), ("i64", "begin"), ("i64", "end")])
        pointers = [f.argument("%args", index) for index in range(4 + len(self.residuals))]
        f.loop("%end", lambda unit: self._unit(f, unit, pointers), start="%begin")
        f.finish()
        return str(module)

    def add_tiles(self, module: Module) -> None:
        """Add the functions that :meth:`put_row` calls."""
        names = [f"r{index}" for index in range(len(self.residuals))]
        full, tail = divmod(self.y.w, self.rows)
        pitch = (self.y.lanes, self.y.plane)
        for rows in sorted({self.rows if full else 0, tail} - {0}):
            for lanes in sorted({self.y.lanes, self.last_lanes}):
                product_tile(
                    module,
                    f"{self.name}{rows}x{lanes}",
                    rows,
                    self.vectors,
                    self.source.terms,
                    pitch,
                    True,
                    self._finish,
                    names,
                    weights=Weights(self.vectors * self.y.lanes, fetched=self.fetched),
                    lanes=lanes,
                )

    def _finish(self, f: Function, total: Value, row: int, v: int) -> Value:
        operands = tuple(
            f.load_vector(f.at(f"%r{index}", row * r.lanes + v * r.plane))
            for index, r in enumerate(self.residuals)
        )
        return self.epilogue.apply(f, total, operands)

    def _unit(self, f: Function, unit: Value, pointers: Sequence[Value]) -> None:
        if self.rows_first:
            rest, group = f.divide(unit, self.groups)
            image, row = f.divide(rest, self.y.h)
        else:
            rest, row = f.divide(unit, self.y.h)
            image, group = f.divide(rest, self.groups)
        x = f.at(f.at(pointers[0], f.mul(image, self.source.image)), self.source.first)
        x = f.at(x, f.mul(row, self.source.row))
        if self.parts > 1:
            part, _ = f.divide(group, self.groups // self.parts)
            x = f.at(x, f.mul(part, self.source.terms.blocks * self.source.terms.block_pitch))
        self.put_row(f, (image, group, row), [x, *pointers[1:]])

    def put_row(
        self, f: Function, place: tuple[Value, Value, Value], pointers: Sequence[Value]
    ) -> None:
        """One row of one group of outputs, for ``place`` (image, group, row).

        ``pointers`` are what the row's first pixel reads, then weights, bias, output and added
        tensors from their start.
        """
        y, source, (image, group, row) = self.y, self.source, place
        x, weights, bias, target, *added = pointers
        full, tail = divmod(y.w, self.rows)
        block = f.mul(group, self.vectors)
        weights = f.at(weights, f.mul(group, self.panel))
        step = self.fetched * LINE * source.terms.blocks
        coming = f.at(f.at(weights, self.panel), f.mul(row, self.tiles * step))
        bias = f.at(bias, f.mul(block, y.lanes))
        target = row_start(f, target, y, image, block, row)
        added = [
            row_start(f, pointer, r, image, block, row)
            for pointer, r in zip(added, self.residuals, strict=True)
        ]

        at = image if source.deep else row
        cut = () if source.reach is None else source.reach.between(f, at)

        def tile(rows: int, index: Value | int, lanes: int) -> None:
            first = f.mul(index, self.rows)
            moved = f.mul(first, y.lanes)
            f.call(
                f"{self.name}{rows}x{lanes}",
                ("ptr", f.at(x, f.mul(first, source.pixel))),
                ("ptr", weights),
                ("ptr", bias),
                ("ptr", f.at(target, moved)),
                *(("ptr", f.at(pointer, moved)) for pointer in added),
                *([("ptr", f.at(coming, f.mul(index, step)))] if self.fetched else []),
                *(("i64", number) for number in cut),
            )

        def tiles(lanes: int) -> None:
            if full:
                f.loop(full, lambda index: tile(self.rows, index, lanes))
            if tail:
                tile(tail, str(full), lanes)

        if self.last_lanes == y.lanes:
            tiles(y.lanes)
        else:
            f.when(f.compare("ne", group, self.groups - 1), lambda: tiles(y.lanes))
            f.when(f.compare("eq", group, self.groups - 1), lambda: tiles(self.last_lanes))
        clear_halo(f, y, target, row, self.vectors)
