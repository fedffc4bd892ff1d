"""Recurrent layers: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from mnnpy.runtime.errors import ShapeError
from mnnpy.runtime.graph.dims import Dim, Shape, differ
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array, ArrayModule, TensorType, Type, Value
from mnnpy.runtime.ops.activation import (
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    Softplus,
    Softsign,
)
from mnnpy.runtime.ops.elementwise import require_same_dtype
from mnnpy.runtime.ops.numeric import sigmoid, widen

Function: TypeAlias = Callable[[ArrayModule, Array], Array]
States: TypeAlias = tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class GateActivation:
    """An activation that gates may use: default parameters (None: it has none) and arithmetic."""

    compute: Callable[[ArrayModule, Array, float, float], Array]
    alpha: float | None = None
    beta: float | None = None


GATE_ACTIVATIONS: Mapping[str, GateActivation] = {
    "Relu": GateActivation(lambda xp, x, a, b: Relu().reference(xp, x)[0]),
    "Tanh": GateActivation(lambda xp, x, a, b: xp.tanh(x)),
    "Sigmoid": GateActivation(lambda xp, x, a, b: sigmoid(xp, x)),
    "Affine": GateActivation(lambda xp, x, a, b: a * x + b, 1.0, 0.0),
    "LeakyRelu": GateActivation(lambda xp, x, a, b: LeakyRelu(a).compute(xp, x), 0.01),
    # ">=" is the layers' own definition; the operator ThresholdedRelu has ">".
    "ThresholdedRelu": GateActivation(lambda xp, x, a, b: xp.where(x >= a, x, 0 * x), 1.0),
    "ScaledTanh": GateActivation(lambda xp, x, a, b: a * xp.tanh(b * x), 1.0, 1.0),
    "HardSigmoid": GateActivation(lambda xp, x, a, b: HardSigmoid(a, b).compute(xp, x), 0.2, 0.5),
    "Elu": GateActivation(lambda xp, x, a, b: Elu(a).compute(xp, x), 1.0),
    "Softsign": GateActivation(lambda xp, x, a, b: Softsign().compute(xp, x)),
    "Softplus": GateActivation(lambda xp, x, a, b: Softplus().compute(xp, x)),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction's parameters and activations.

    w : (gates, inputs, hidden), r : (gates, hidden, hidden), wb and rb : (gates, 1, hidden),
    p : peepholes (3, hidden).
    """

    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array
    functions: Sequence[Function]


@dataclass(frozen=True, slots=True)
class Recurrent(Op):
    """Base of the three layers.

    x : (sequence, batch, inputs), w : (directions, gates * hidden, inputs),
    r : (directions, gates * hidden, hidden), b : (directions, 2 * gates * hidden),
    sequence_lens : (batch,), states : (directions, batch, hidden)
    -> y : (sequence, directions, batch, hidden), final states. With ``layout`` 1 the batch stands
    first in x, y and states. Beyond a sequence's length y is zero and its state stays.

    ``activations`` are every direction's, in order; empty means the layer's own.
    ``activation_alpha`` and ``activation_beta`` go in order to the activations that have them.
    """

    direction: str = "forward"
    activations: tuple[str, ...] = ()
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    layout: int = 0

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    own_activations: ClassVar[tuple[str, ...]] = ("Tanh",)

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def infer(
        self,
        x: Value,
        w: Value,
        r: Value,
        b: Value | None = None,
        sequence_lens: Value | None = None,
        *states: Value | None,
    ) -> tuple[Type, ...]:
        require_same_dtype(x, w, r)
        if not x.rank == w.rank == r.rank == 3:
            raise ShapeError(f"x {x.shape}, w {w.shape} and r {r.shape} must have rank 3")
        sequence, batch = x.shape[1::-1] if self.layout else x.shape[:2]
        count, hidden = self.directions, r.shape[2]
        rows: Dim = hidden * self.gates
        state = (batch, count, hidden) if self.layout else (count, batch, hidden)
        _require_shape("w", w, (count, rows, x.shape[2]))
        _require_shape("r", r, (count, rows, hidden))
        _require_shape("b", b, (count, rows * 2))
        _require_shape("sequence_lens", sequence_lens, (batch,))
        for given in states[: self.states]:
            _require_shape("the initial state", given, state)
        y: Shape = (sequence, count, batch, hidden)
        if self.layout:
            y = (batch, sequence, count, hidden)
        return (TensorType(x.dtype, y), *[TensorType(x.dtype, state)] * self.states)

    def reference(
        self,
        xp: ArrayModule,
        x: Array,
        w: Array,
        r: Array,
        b: Array | None = None,
        sequence_lens: Array | None = None,
        *states: Array | None,
    ) -> tuple[Array, ...]:
        dtype = x.dtype
        x = widen(xp.swapaxes(x, 0, 1) if self.layout else x)
        sequence, batch, _ = x.shape
        hidden = r.shape[2]
        y = xp.zeros((sequence, self.directions, batch, hidden), dtype=x.dtype)
        finals = xp.zeros((self.states, self.directions, batch, hidden), dtype=x.dtype)
        for index, given in enumerate(states[: self.states]):
            if given is not None:
                finals[index] = xp.swapaxes(given, 0, 1) if self.layout else given
        lengths = xp.full(batch, sequence) if sequence_lens is None else sequence_lens
        peepholes = states[self.states] if len(states) > self.states else None
        for d in range(self.directions):
            cell = self._cell(xp, d, w, r, b, peepholes)
            state: States = tuple(finals[:, d])
            backwards = self.direction == "reverse" or d == 1
            for t in reversed(range(sequence)) if backwards else range(sequence):
                live = (t < lengths)[:, None]
                following = self.step(xp, xp.matmul(x[t], cell.w) + cell.wb, state, cell)
                state = tuple(map(lambda n, s: xp.where(live, n, s), following, state))
                y[t, d] = xp.where(live, state[0], 0)
            finals[:, d] = xp.stack(state)
        if self.layout:
            y, finals = y.transpose(2, 0, 1, 3), xp.swapaxes(finals, 1, 2)
        return (y.astype(dtype), *(final.astype(dtype) for final in finals))

    def step(self, xp: ArrayModule, inputs: Array, state: States, cell: Cell) -> States:
        """Next states from ``inputs`` (gates, batch, hidden), which hold x w' + wb, and states."""
        raise NotImplementedError(self.kind)

    def functions(self) -> tuple[Function, ...]:
        """Every direction's activations in order, with their parameters and clipping."""
        return tuple(
            _clipped(GATE_ACTIVATIONS[name], alpha, beta, self.clip)
            for name, alpha, beta in self.named_activations()
        )

    def named_activations(self) -> tuple[tuple[str, float, float], ...]:
        """Every direction's activations in order, as name, alpha and beta."""
        alphas, betas = iter(self.activation_alpha), iter(self.activation_beta)
        named = []
        for name in self.activations or self.own_activations * self.directions:
            kind = GATE_ACTIVATIONS[name]
            alpha = 0.0 if kind.alpha is None else next(alphas, kind.alpha)
            beta = 0.0 if kind.beta is None else next(betas, kind.beta)
            named.append((name, alpha, beta))
        return tuple(named)

    def _cell(
        self, xp: ArrayModule, d: int, w: Array, r: Array, b: Array | None, p: Array | None
    ) -> Cell:
        hidden, per_direction = r.shape[2], len(self.own_activations)
        dtype = widen(r[:0]).dtype
        biases = xp.zeros((2, self.gates, 1, hidden), dtype=dtype)
        if b is not None:
            biases[...] = b[d].reshape(biases.shape)
        peepholes = xp.zeros((3, hidden), dtype=dtype)
        if p is not None:
            peepholes[...] = p[d].reshape(3, hidden)
        return Cell(
            widen(w[d]).reshape(self.gates, hidden, -1).swapaxes(1, 2),
            widen(r[d]).reshape(self.gates, hidden, hidden).swapaxes(1, 2),
            biases[0],
            biases[1],
            peepholes,
            self.functions()[d * per_direction : (d + 1) * per_direction],
        )

    def macs(self, inputs: Sequence[Value | None], outputs: Sequence[Type]) -> int:
        x, w, r = inputs[:3]
        assert x is not None
        assert w is not None
        assert r is not None
        return int(x.shape[0]) * int(x.shape[1]) * (w.tensor.size + r.tensor.size)


@dataclass(frozen=True, slots=True)
class RNN(Recurrent):
    """Simple recurrent layer, ONNX RNN-22: h = f(x w' + h r' + b)."""

    def step(self, xp: ArrayModule, inputs: Array, state: States, cell: Cell) -> States:
        (f,) = cell.functions
        (h,) = state
        return (f(xp, inputs[0] + xp.matmul(h, cell.r[0]) + cell.rb[0]),)


@dataclass(frozen=True, slots=True)
class GRU(Recurrent):
    """Gated recurrent unit, ONNX GRU-22; gates in the order update, reset, hidden."""

    linear_before_reset: int = 0

    gates: ClassVar[int] = 3
    own_activations: ClassVar[tuple[str, ...]] = ("Sigmoid", "Tanh")

    def step(self, xp: ArrayModule, inputs: Array, state: States, cell: Cell) -> States:
        f, g = cell.functions
        (h,) = state
        update, reset = (f(xp, inputs[i] + xp.matmul(h, cell.r[i]) + cell.rb[i]) for i in range(2))
        if self.linear_before_reset:
            recurrent = reset * (xp.matmul(h, cell.r[2]) + cell.rb[2])
        else:
            recurrent = xp.matmul(reset * h, cell.r[2]) + cell.rb[2]
        return ((1 - update) * g(xp, inputs[2] + recurrent) + update * h,)


@dataclass(frozen=True, slots=True)
class LSTM(Recurrent):
    """Long short-term memory, ONNX LSTM-22; gates in the order input, output, forget, cell.

    After the initial states h and c comes p : (directions, 3 * hidden), the peepholes of input,
    output and forget gate. ``input_forget`` couples the forget gate to the input gate.
    """

    input_forget: int = 0

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2
    own_activations: ClassVar[tuple[str, ...]] = ("Sigmoid", "Tanh", "Tanh")

    def step(self, xp: ArrayModule, inputs: Array, state: States, cell: Cell) -> States:
        f, g, activate = cell.functions
        h, c = state
        into, out, forget, new = inputs + xp.matmul(h, cell.r) + cell.rb
        into = f(xp, into + cell.p[0] * c)
        forget = 1 - into if self.input_forget else f(xp, forget + cell.p[2] * c)
        c = forget * c + into * g(xp, new)
        return f(xp, out + cell.p[1] * c) * activate(xp, c), c


def _clipped(kind: GateActivation, alpha: float, beta: float, limit: float | None) -> Function:
    """The activation of its input clipped to [-limit, limit]."""

    def function(xp: ArrayModule, x: Array) -> Array:
        return kind.compute(xp, x if limit is None else xp.clip(x, -limit, limit), alpha, beta)

    return function


def _require_shape(name: str, value: Value | None, shape: Shape) -> None:
    if value is None:
        return
    if value.rank != len(shape) or any(map(differ, value.shape, shape)):
        raise ShapeError(f"{name} has the shape {value.shape}, needed is {shape}")


OPERATORS: tuple[type[Op], ...] = (RNN, GRU, LSTM)
