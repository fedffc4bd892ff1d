"""The generated recurrent layers over odd shapes and options, against references in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mnnpy.backends.numba_cpu.jit import host_jit
from mnnpy.backends.numba_cpu.recurrent import RecurrentSteps
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.graph.types import Value, type_of
from mnnpy.runtime.ops.recurrent import GRU, LSTM, RNN, Recurrent
from mnnpy.runtime.registry import load_backend
from tests.backends.test_kernels import Array, candidates, run_outputs
from tests.pairwise import Case, pairwise

LAYERS: dict[str, Recurrent] = {
    "rnn": RNN(),
    "rnn relu": RNN(activations=("Relu",)),
    "rnn elu": RNN(activations=("Elu",), activation_alpha=(0.5,)),
    "gru": GRU(),
    "gru linear": GRU(linear_before_reset=1),
    "gru hard": GRU(
        activations=("HardSigmoid", "Softsign"), activation_alpha=(0.3,), activation_beta=(0.4,)
    ),
    "lstm": LSTM(),
    "lstm coupled": LSTM(input_forget=1),
    "lstm peepholes": LSTM(),
}

CASES = {
    "layer": tuple(LAYERS),
    "hidden": (1, 3, 15, 16, 17, 33, 70),
    "inputs": (1, 3, 16, 33),
    "steps": (1, 2, 7),
    "samples": (1, 2, 3, 17),
    "direction": ("forward", "reverse", "bidirectional"),
    "layout": (0, 1),
    "clip": (None, 0.3),
    "bias": (False, True),
    "lengths": (False, True),
    "states": (False, True),
}


def shown(case: Case) -> str:
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("case", pairwise(CASES, lambda case: True), ids=shown)
def test_odd_shapes_of_recurrent_layers(case: Case) -> None:
    op, arrays = _layer(case)
    wide = [None if a is None else a.astype(np.float64) for a in arrays]
    wanted = op.reference(np, *wide)
    for shared in (0, 1):
        for found, expected in zip(_outputs(op, arrays, shared), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_nan_stays_with_its_sample(name: str) -> None:
    """And in its time: what comes before is not touched."""
    sizes = {"hidden": 17, "inputs": 5, "steps": 4, "samples": 3, "layout": 0}
    off = dict.fromkeys(("bias", "lengths", "states"), False)
    case = {"layer": name, "direction": "forward", "clip": None, **sizes, **off}
    op, arrays = _layer(case)
    x = arrays[0]
    assert x is not None
    x[1, 1, 2] = np.nan
    y = _outputs(op, arrays, 0)[0]
    wanted = op.reference(np, *arrays)[0]
    assert np.isnan(wanted).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))


@pytest.mark.parametrize(
    ("op", "computed", "reason"),
    [
        (RNN(activations=("Affine",)), (), "Affine is not generated"),
        (LSTM(), (1,), "weights are computed by the network"),
        (RNN(), (2,), "weights are computed by the network"),
        (
            RNN(direction="bidirectional", activations=("Tanh", "Relu")),
            (),
            "each direction has activations of its own",
        ),
    ],
    ids=str,
)
def test_layers_that_are_left_to_others(
    op: Recurrent, computed: tuple[int, ...], reason: str
) -> None:
    shapes = (3, 2, 4), (op.directions, op.gates * 5, 4), (op.directions, op.gates * 5, 5)
    task = _task(op, [np.zeros(shape, np.float32) for shape in shapes], computed)
    found = RecurrentSteps(host_jit()).reject(task, load_backend("numba").describe())
    assert found == reason


def _layer(case: Case) -> tuple[Recurrent, list[Array | None]]:
    """The operator and its inputs, None where the case has none."""
    op, rng = LAYERS[case["layer"]], np.random.default_rng(0)
    op = replace(op, **{name: case[name] for name in ("direction", "layout", "clip")})
    op = replace(
        op,
        activations=op.activations * op.directions,
        activation_alpha=op.activation_alpha * op.directions,
        activation_beta=op.activation_beta * op.directions,
    )
    directions, hidden, samples = op.directions, case["hidden"], case["samples"]

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)

    def ordered(first: int, second: int, last: int) -> Array:
        return normal(*((second, first) if case["layout"] else (first, second)), last) * 4

    arrays: list[Array | None] = [
        ordered(case["steps"], samples, case["inputs"]),
        normal(directions, op.gates * hidden, case["inputs"]),
        normal(directions, op.gates * hidden, hidden),
        normal(directions, 2 * op.gates * hidden) * 3 if case["bias"] else None,
        rng.integers(0, case["steps"] + 1, samples, np.int32) if case["lengths"] else None,
    ]
    for _ in range(op.states):
        arrays.append(ordered(directions, samples, hidden) if case["states"] else None)
    if case["layer"] == "lstm peepholes":
        arrays.append(normal(directions, 3 * hidden) * 3)
    return op, arrays


def _task(op: Recurrent, arrays: list[Any], computed: tuple[int, ...] = (0, 4, 5, 6)) -> Task:
    """Weights are constants, all of them that are not computed."""
    values = tuple(
        None if a is None else Value(type_of(a), None if index in (0, *computed) else a)
        for index, a in enumerate(arrays)
    )
    return Task(op, values, op.infer(*values))


def _outputs(op: Recurrent, arrays: list[Array | None], shared: int) -> list[Array]:
    """What the kernel gives, threads sharing every step or not."""
    backend, computed = load_backend("numba"), (4, 5, 6) if isinstance(op, LSTM) else (4, 5)
    task = _task(op, arrays, computed)
    ((kernel, config),) = candidates(backend, task)
    config = tuple((dict(config) | {"shared": shared}).items())
    return run_outputs(backend, kernel, config, task, arrays)
