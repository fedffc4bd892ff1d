"""Tiles of products: which shape a width gets from given rates; timing and keeping rates."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnnpy.backends.numba_cpu import tile_rates
from mnnpy.backends.numba_cpu.jit import Cpu, host_jit
from mnnpy.backends.numba_cpu.tile_rates import machine_rates, rates_path, renew_rates, timed_shapes
from mnnpy.backends.numba_cpu.tiles import choose_tile, shipped_rates
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.devices import Coefficients, Device, TileRates
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import FLOAT32, TensorType, Value
from mnnpy.runtime.ops.attention import Attention
from mnnpy.runtime.ops.convolution import Conv, ConvTranspose
from mnnpy.runtime.ops.matmul import MatMul
from mnnpy.runtime.registry import load_backend

FLAT: TileRates = tuple((r, v, 1.0) for v in (1, 2) for r in range(1, 9))
BY_SUMS: TileRates = tuple((r, v, min(r * v, 6) / 6) for v in (1, 2) for r in range(1, 9))
SPILLS: TileRates = tuple(
    (r, v, 0.2 if r * v > 6 else r * v / 6) for v in (1, 2) for r in range(1, 9)
)
SPARSE: TileRates = ((1, 1, 0.25), (4, 1, 1.0), (8, 1, 1.0))
CPUS = {
    "AVX-512": Cpu("", "+avx2,+avx512f"),
    "AVX2": Cpu("", "+avx2"),
    "SSE2": Cpu("", "+sse2"),
    "NEON": Cpu("", "+neon"),
}


def device(rates: TileRates = ()) -> Device:
    """A machine that is not there."""
    free = {"*": Coefficients(0.0, 0.0, 0.0)}
    return Device("cpu", "described", "host", coefficients=free, tile_rates=rates)


@pytest.mark.parametrize(
    ("rates", "width", "blocks", "vectors", "tile"),
    [
        (FLAT, 8, 2, (1, 2), (8, 1)),
        (FLAT, 8, 2, (2, 1), (8, 2)),
        (FLAT, 9, 2, (1, 2), (5, 1)),
        (FLAT, 12, 2, (1, 2), (6, 1)),
        (FLAT, 17, 2, (1, 2), (6, 1)),
        (BY_SUMS, 1, 2, (1, 2), (1, 2)),
        (BY_SUMS, 1, 1, (1,), (1, 1)),
        (BY_SUMS, 3, 2, (1, 2), (3, 2)),
        (BY_SUMS, 6, 2, (1, 2), (6, 1)),
        (BY_SUMS, 7, 2, (1, 2), (7, 1)),
        (SPILLS, 6, 2, (1, 2), (6, 1)),
        (SPILLS, 7, 2, (1, 2), (3, 2)),
        (SPILLS, 9, 2, (1, 2), (3, 2)),
        (SPILLS, 9, 3, (1, 2), (5, 1)),
        (SPARSE, 6, 1, (1,), (6, 1)),
        (SPARSE, 60, 1, (1,), (6, 1)),
    ],
)
def test_the_choice(
    rates: TileRates, width: int, blocks: int, vectors: tuple[int, ...], tile: tuple[int, int]
) -> None:
    assert choose_tile(device(rates), 16, width, blocks, vectors) == tile


@pytest.mark.parametrize("width", range(1, 61))
@pytest.mark.parametrize("rates", [FLAT, BY_SUMS, SPILLS], ids=("flat", "by sums", "spills"))
def test_no_shape_is_much_faster(rates: TileRates, width: int) -> None:
    rate = {(rows, vectors): rate for rows, vectors, rate in rates}

    def seconds(rows: int, vectors: int) -> float:
        heights = [rows] * (width // rows) + [width % rows] * (width % rows > 0)
        return sum(height / rate[height, vectors] for height in heights)

    chosen = choose_tile(device(rates), 16, width, 2, (1, 2))
    best = min(seconds(rows, vectors) for rows, vectors in rate if rows <= width)
    assert seconds(*chosen) <= 1.07 * best  # Two choices, each within three percent.
    assert chosen[0] * chosen[1] <= 6 or rates is not SPILLS


@pytest.mark.parametrize("width", range(1, 61))
def test_noise_chooses_nothing(width: int) -> None:
    rng = np.random.default_rng(width)
    for _ in range(10):
        noisy = tuple((r, v, rate * rng.uniform(0.99, 1.01)) for r, v, rate in FLAT)
        chosen = [choose_tile(device(rates), 16, width, 2, (2, 1)) for rates in (FLAT, noisy)]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize("name", CPUS)
def test_what_is_timed_fits_the_registers(name: str) -> None:
    cpu = CPUS[name]
    shapes = timed_shapes(cpu)
    assert cpu.registers == (16 if name in ("AVX2", "SSE2") else 32)
    assert all(rows * vectors + vectors + 1 <= cpu.registers for rows, vectors in shapes)
    assert {(1, vectors) for vectors in (1, 2, 3, 4)} <= set(shapes)
    if name != "NEON":
        assert tuple((rows, vectors) for rows, vectors, _ in shipped_rates(cpu.lanes)) == shapes


def tasks(width: int, channels: int) -> list[Task]:
    """One for every kernel that chooses a tile."""
    shapes: list[tuple[Op, tuple[int, ...], tuple[int, ...]]] = [
        (Conv(), (1, 3, 5, width), (channels, 3, 1, 1)),
        (Conv(), (1, 17, 5, width), (channels, 17, 1, 1)),
        (ConvTranspose(strides=(1, 2)), (1, 17, 5, width), (17, channels, 2, 2)),
        (MatMul(), (width, 33), (33, channels)),
    ]
    found = []
    for op, left, right in shapes:
        weights = np.zeros(right, np.float32)
        values = (Value(TensorType(FLOAT32, left)), Value(TensorType(FLOAT32, right), weights))
        found.append(Task(op, values, op.infer(*values)[:1]))
    a, b = (Value(TensorType(FLOAT32, shape)) for shape in ((2, width, 33), (2, 33, channels)))
    found.append(Task(MatMul(), (a, b), MatMul().infer(a, b)))
    q = Value(TensorType(FLOAT32, (1, 2, width, 8)))
    return [*found, Task(Attention(), (q, q, q), Attention().infer(q, q, q)[:1])]


@pytest.mark.parametrize("channels", [1, 16, 24, 33, 48, 64, 1000])
@pytest.mark.parametrize("where", ["here", "described"])
def test_tiles_of_numba_fit_the_registers(where: str, channels: int) -> None:
    """Also on the narrower vectors that ``test_instruction_sets.py`` runs this with."""
    backend, cpu = load_backend("numba"), host_jit().cpu
    machine = backend.describe() if where == "here" else device()
    assert tuple((rows, vectors) for rows, vectors, _ in backend.describe().tile_rates) in (
        timed_shapes(cpu),
        tuple((rows, vectors) for rows, vectors, _ in shipped_rates(cpu.lanes)),
    )
    seen = set()
    for task in (task for width in range(1, 61) for task in tasks(width, channels)):
        for kernel in backend.kernels(task.op):
            if kernel.reject(task, machine) is None:
                for config in kernel.configs(task, machine):
                    options = dict(config)
                    height = options.get("rows", options.get("height"))
                    if height is None:
                        continue
                    rows, vectors = int(height), int(options.get("vectors", 1))
                    assert rows * vectors + vectors + 1 <= cpu.registers, (kernel.scheme, config)
                    seen.add(kernel.scheme)
    wanted = {"conv_direct", "conv_transposed", "matmul_packed", "matmul_panels", "attention_tiles"}
    assert wanted <= seen


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """An empty cache, and timings that never end the same: the rates of each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    speeds: list[float] = []

    def time_tiles(jit: object) -> TileRates:
        speeds.append(1e9 + len(speeds) * 1e7)
        return rates_of(speeds[-1])

    monkeypatch.setattr(tile_rates, "time_tiles", time_tiles)
    return speeds


def rates_of(speed: float) -> TileRates:
    return tuple((rows, vectors, speed) for rows, vectors in timed_shapes(host_jit().cpu))


def test_a_machine_is_timed_once(timings: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mnnpy"):
        assert [machine_rates() for _ in range(3)] == [rates_of(1e9)] * 3
    assert len(timings) == len(caplog.messages) == 1
    assert rates_path(host_jit()).parent.stat().st_mode & 0o777 == 0o700


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-3],
    "no text": lambda content: b"\xff" * 20,
    "no list": lambda content: b"17",
    "no entries": lambda content: b"[]",
    "no numbers": lambda content: content.replace(b"1000000000.0", b'"fast"'),
    "not finite": lambda content: content.replace(b"1000000000.0", b"NaN"),
    "negative": lambda content: content.replace(b"1000000000.0", b"-1.0"),
    "other shapes": lambda content: json.dumps(
        [(r, v, 1.0) for r, v in timed_shapes(CPUS["AVX2" if host_jit().cpu.lanes > 8 else "NEON"])]
    ).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rates_are_timed_again(timings: list[float], damage: str) -> None:
    machine_rates()
    path = rates_path(host_jit())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert machine_rates() == machine_rates() == rates_of(1.01e9)
    assert len(timings) == 2


def test_another_process_is_first(timings: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(jit: object) -> TileRates:
        rates_path(host_jit()).write_text(json.dumps(rates_of(3e9)))
        return rates_of(2e9)

    monkeypatch.setattr(tile_rates, "time_tiles", slowly)
    assert machine_rates() == rates_of(3e9)


@pytest.mark.parametrize("obstacle", ["open to others", "no directory"])
def test_nowhere_to_keep_rates(timings: list[float], obstacle: str, tmp_path: Path) -> None:
    directory = rates_path(host_jit()).parent
    if obstacle == "no directory":
        directory.parent.mkdir()
        directory.write_text("")
    else:
        machine_rates()
        directory.chmod(0o777)
        timings.clear()
    assert machine_rates() == shipped_rates(host_jit().cpu.lanes)
    assert not timings


def test_a_full_disk(timings: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tile_rates, "write_atomically", refuse)
    assert machine_rates() == shipped_rates(host_jit().cpu.lanes)


@pytest.mark.parametrize(("speed", "kept"), [(1.02e9, 1e9), (0.98e9, 1e9), (1.1e9, 1.1e9)])
def test_timing_anew_keeps_what_is_about_the_same(
    timings: list[float], monkeypatch: pytest.MonkeyPatch, speed: float, kept: float
) -> None:
    machine_rates()
    monkeypatch.setattr(tile_rates, "time_tiles", lambda jit: rates_of(speed))
    path, rates = renew_rates()
    assert rates == rates_of(kept) == machine_rates()
    assert path == rates_path(host_jit())
