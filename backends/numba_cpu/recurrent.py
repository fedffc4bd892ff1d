"""Recurrent layers: one product for the inputs of all time steps, then step after step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mnnpy.backends.numba_cpu.convolutions import aligned_floats, pack_bias, pack_panels
from mnnpy.backends.numba_cpu.epilogues import Epilogue
from mnnpy.backends.numba_cpu.gates import ACTIVATIONS, resets_ahead, state_names
from mnnpy.backends.numba_cpu.kernel import NativeKernel
from mnnpy.backends.numba_cpu.matmul_packed import product_code
from mnnpy.backends.numba_cpu.moves import moved
from mnnpy.backends.numba_cpu.native import NativeCall, NativeSequence
from mnnpy.backends.numba_cpu.panels import Panels, panel_widths
from mnnpy.backends.numba_cpu.recurrence import Recurrence
from mnnpy.backends.numba_cpu.tiles import choose_tile
from mnnpy.runtime.contracts import Buffers, Config, Run, Task
from mnnpy.runtime.devices import Device, Work
from mnnpy.runtime.graph.types import FLOAT32, INT32, Array
from mnnpy.runtime.ops.recurrent import GRU, LSTM, RNN, Recurrent
from mnnpy.schemes.geometry import aligned, take

_W, _R, _B, _LENGTHS, _STATES = 1, 2, 3, 4, 5
"""Positions of inputs."""

_GATE_MACS = 30
"""Multiply-adds that take as long as the activation of a gate."""

_WORTH_SHARING = 1 << 13
"""Multiply-adds of one direction's step from which on threads gain by meeting behind it."""


class RecurrentSteps(NativeKernel):
    """Directions and tiles of samples run side by side, each through all time steps.

    Where these are too few for the threads, all threads share every step (``shared``).
    """

    __slots__ = ()
    scheme = "recurrent_steps"
    operators = (RNN, GRU, LSTM)

    def reject(self, task: Task, device: Device) -> str | None:
        op = _layer(task)
        for index, value in enumerate(task.inputs):
            wanted = INT32 if index == _LENGTHS else FLOAT32
            if value is not None and value.tensor.dtype != wanted:
                return f"{value.tensor} is not {wanted}"
        if not task.tensor(0).size or not task.output().size:
            return "nothing to compute"
        if any(task.known(position) is None for position in self.packed_inputs(task, ())):
            return "weights are computed by the network"
        named, count = op.named_activations(), len(op.own_activations)
        if op.directions == 2 and named[:count] != named[count:]:
            return "each direction has activations of its own"
        strange = [name for name, *_ in named if name not in ACTIVATIONS]
        return f"{strange[0]} is not generated" if strange else None

    def configs(self, task: Task, device: Device) -> Sequence[Config]:
        sizes = _Sizes.of(task, self.lanes)
        rows, blocks = sizes.steps * sizes.samples, sizes.width // self.lanes
        inputs = choose_tile(device, self.lanes, rows, blocks, panel_widths(rows, blocks))
        blocks = sizes.gates // self.lanes
        widths = panel_widths(sizes.samples, blocks)
        if resets_ahead(_layer(task)):  # Two products: panels end where the first one does.
            widths = [v for v in widths if 2 * sizes.gate % (v * self.lanes) == 0]
        states = choose_tile(device, self.lanes, sizes.samples, blocks, widths)
        even = sizes.directions * -(-sizes.samples // states[0]) % device.threads == 0
        small = sizes.samples * sizes.hidden * sizes.gates < _WORTH_SHARING
        names = ("rows", "vectors", "state_rows", "state_vectors", "shared")
        return (tuple(zip(names, (*inputs, *states, 0 if even or small else 1), strict=True)),)

    def work(self, task: Task, config: Config) -> Work:
        """Every tile of samples reads the states' matrix in every step."""
        sizes = _Sizes.of(task, self.lanes)
        tiles = -(-sizes.samples // int(dict(config)["state_rows"]))
        read = sizes.steps * tiles * task.tensor(_R).nbytes
        activated = sizes.rows * sizes.width * _GATE_MACS
        return Work(task.macs + activated, task.nbytes + read, 1)

    def workspace_nbytes(self, task: Task, config: Config) -> int:
        shapes = _Sizes.of(task, self.lanes).rooms(_layer(task)).values()
        return sum(aligned(math.prod(shape) * FLOAT32.itemsize) for shape in shapes)

    def packed_inputs(self, task: Task, config: Config) -> tuple[int, ...]:
        op = _layer(task)
        peepholes = (_STATES + op.states,) if isinstance(op, LSTM) else ()
        return tuple(p for p in (_W, _R, _B, *peepholes) if _given(task.inputs, p) is not None)

    def packing_config(self, config: Config) -> Config:
        return tuple(entry for entry in config if entry[0].endswith("vectors"))

    def pack(self, task: Task, config: Config) -> tuple[Array, ...]:
        """Matrix and bias of the inputs, those of states by direction, and peepholes.

        Columns are gates one after another, each filled up to whole vectors.
        """
        sizes, options = _Sizes.of(task, self.lanes), dict(config)
        known = {p: a for p in self.packed_inputs(task, config) if (a := task.known(p)) is not None}
        w, r = known.pop(_W), known.pop(_R)
        b = known.pop(_B, np.zeros((sizes.directions, 2 * r.shape[1]), dtype=np.float32))
        columns = sizes.filled(w.swapaxes(1, 2)).swapaxes(0, 1).reshape(w.shape[2], -1)
        width, state_width = (
            int(options[name]) * self.lanes for name in ("vectors", "state_vectors")
        )
        panels = [pack_panels(matrix, state_width) for matrix in sizes.filled(r.swapaxes(1, 2))]
        stacked = aligned_floats((sizes.directions, *panels[0].shape))
        np.stack(panels, out=stacked)
        bias, state_bias = (
            pack_bias(sizes.filled(half).reshape(-1), sizes.width, self.lanes)
            for half in np.split(b, 2, axis=1)
        )
        peepholes = (sizes.filled(p) for p in known.values())
        return pack_panels(columns, width), bias, stacked, state_bias, *peepholes

    def bind(self, task: Task, config: Config, buffers: Buffers) -> Run:
        op, sizes, options = _layer(task), _Sizes.of(task, self.lanes), dict(config)
        rooms, offset = {}, 0
        for name, shape in sizes.rooms(op).items():
            rooms[name], offset = take(buffers.workspace, offset, shape, FLOAT32)
        w, bias, r, state_bias, *peepholes = buffers.packed
        x, lengths = buffers.inputs[0], _given(buffers.inputs, _LENGTHS)
        y, *finals = buffers.outputs
        assert x is not None
        product = self._panels(sizes.rows, x.shape[2], sizes.width, config, "")
        kernel = Recurrence(
            op,
            sizes.steps,
            self._panels(sizes.samples, sizes.hidden, sizes.gates, config, "state_"),
            _pitches(sizes.by_step(op, rooms["inputs"])),
            _pitches(y.transpose(1, 2, 0, 3) if op.layout else y),
            bool(peepholes),
            lengths is not None,
        )
        read = [x, w, bias, rooms["inputs"]]
        states = [rooms[name] for name in state_names(op)]
        stepped = [rooms["inputs"], r, state_bias, rooms["sums"], *states, y, *peepholes]
        stepped += [] if lengths is None else [lengths]
        given = [_given(buffers.inputs, _STATES + index) for index in range(op.states)]
        zero = np.zeros((), dtype=np.float32)
        first = [
            (state, np.broadcast_to(zero, state.shape) if array is None else _states(op, array))
            for state, array in zip(states, given, strict=False)
        ]
        last = [(_states(op, array), state) for array, state in zip(finals, states, strict=False)]
        return NativeSequence(
            (
                *moved(self, first).calls,
                self.call(product_code(product), read, product.count * product.tiles),
                *self._steps(kernel, stepped, bool(options["shared"])),
                *moved(self, last).calls,
            )
        )

    def _steps(
        self, kernel: Recurrence, arrays: Sequence[Array], shared: bool
    ) -> Iterator[NativeCall]:
        if not shared:
            yield self.call(kernel.ir(), arrays, kernel.units)
            return
        turns = np.arange(kernel.steps, dtype=np.int64)
        phases = [
            (
                self.call(kernel.product_ir(phase), arrays, kernel.product_units(phase)),
                self.jit.address(kernel.cell_ir(phase), "run"),
            )
            for phase in kernel.phases
        ]
        for turn in range(kernel.steps):
            for product, cells in phases:
                yield product
                yield NativeCall.bind(cells, [*arrays, turns[turn : turn + 1]], kernel.cell_units)

    def _panels(self, m: int, k: int, n: int, config: Config, of: str) -> Panels:
        rows, vectors = (int(dict(config)[of + name]) for name in ("rows", "vectors"))
        return Panels(self.lanes, m, k, n, 0, Epilogue((), ()), rows, vectors, in_row=not of)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes of a layer; gates are filled up to whole vectors.

    Parameters
    ----------
    gate, gates, width : floats of one gate, of one direction's gates, and of both directions'.
    """

    directions: int
    steps: int
    samples: int
    hidden: int
    gate: int
    gates: int

    @staticmethod
    def of(task: Task, lanes: int) -> _Sizes:
        op = _layer(task)
        first, second, _ = (int(dim) for dim in task.tensor(0).shape)
        steps, samples = (second, first) if op.layout else (first, second)
        hidden = int(task.tensor(_R).shape[2])
        gate = -(-hidden // lanes) * lanes
        return _Sizes(op.directions, steps, samples, hidden, gate, op.gates * gate)

    @property
    def width(self) -> int:
        return self.directions * self.gates

    @property
    def rows(self) -> int:
        """Of the product of all inputs."""
        return self.steps * self.samples

    def rooms(self, op: Recurrent) -> dict[str, tuple[int, ...]]:
        """Arrays of the workspace."""
        state = (self.directions, self.samples, self.hidden)
        return {
            "inputs": (self.rows, self.width),
            "sums": (self.directions, self.samples, self.gates),
            **dict.fromkeys(state_names(op), state),
        }

    def by_step(self, op: Recurrent, products: Array) -> Array:
        """Products of inputs as (steps, directions, samples, gates)."""
        rows = (self.samples, self.steps) if op.layout else (self.steps, self.samples)
        apart = products.reshape(*rows, self.directions, self.gates)
        return apart.transpose((1, 2, 0, 3) if op.layout else (0, 2, 1, 3))

    def filled(self, columns: Array) -> Array:
        """(..., gates * hidden), every gate filled up with zeros to whole vectors."""
        by_gate = columns.reshape(*columns.shape[:-1], -1, self.hidden)
        border = [(0, 0)] * (by_gate.ndim - 1) + [(0, self.gate - self.hidden)]
        return np.pad(by_gate, border).reshape(*columns.shape[:-1], -1)


def _layer(task: Task) -> Recurrent:
    assert isinstance(task.op, Recurrent)
    return task.op


_Given = TypeVar("_Given")


def _given(inputs: Sequence[_Given | None], position: int) -> _Given | None:
    """An optional input."""
    return inputs[position] if position < len(inputs) else None


def _states(op: Recurrent, array: Array) -> Array:
    """States as (directions, samples, hidden)."""
    return array.swapaxes(0, 1) if op.layout else array


def _pitches(array: Array) -> tuple[int, int, int]:
    """Floats between steps, directions and samples."""
    step, direction, sample, _ = (stride // array.itemsize for stride in array.strides)
    return step, direction, sample
