"""Per layer: what every product of our plan reaches of the machine's multiply-adds, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from benchmarks.engines import Arrays
from benchmarks.markdown import bullets, markdown_table, ratio
from benchmarks.peak import measure_bandwidth, measure_peak
from benchmarks.step_times import time_steps
from mnnpy import Session
from mnnpy.runtime.contracts import Task
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.types import Value
from mnnpy.runtime.ops.convolution import Conv
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.ops.matmul import Gemm, MatMul
from mnnpy.runtime.preinference.constraints import Constraints
from mnnpy.runtime.preinference.explain import config_text, shape_text
from mnnpy.runtime.preinference.plan import Step
from mnnpy.runtime.preinference.regions import is_anchored, split_anchored

SATISFYING = 0.7
"""Part of a ceiling from which on a layer needs no other reason."""
_SMALL_SECONDS = 100e-6
_FEW_ROWS = 8
_FEW_CHANNELS = 4
_UNKNOWN = "no reason known"
_COLUMNS = ("step", "node", "operator", "scheme", "config", "shape")
_NUMBERS = ("measured us", "predicted us", "GFLOP/s", "of peak")


@dataclass(frozen=True, slots=True)
class Layer:
    """A step of a plan and what it took.

    Parameters
    ----------
    peak : GFLOP/s of multiply-adds in registers on the same threads.
    bandwidth : GB/s of reading memory on the same threads.
    """

    step: Step
    task: Task
    seconds: float
    peak: float
    bandwidth: float

    @property
    def gflops(self) -> float:
        """By the multiply-adds of the textbook algorithm, so that Winograd may pass the peak."""
        return 2 * self.task.macs / self.seconds / 1e9

    @property
    def of_peak(self) -> float:
        return self.gflops / self.peak

    @property
    def product(self) -> Task:
        """The convolution or product, without what a region does behind it."""
        op = self.task.op
        anchored = isinstance(op, Fused) and is_anchored(op.graph)
        return split_anchored(self.task).task if anchored else self.task

    @property
    def reason(self) -> str:
        """What keeps the layer below the peak, as far as its shape and its traffic tell."""
        product = self.product
        rate = self.task.nbytes / self.seconds / 1e9
        if isinstance(product.op, Fused):
            convolutions = [n.op for n in product.op.graph.nodes if isinstance(n.op, Conv)]
            if any(convolution.group > 1 for convolution in convolutions):
                return f"holds a depthwise convolution: bound by loads and memory, {rate:.0f} GB/s"
        if isinstance(product.op, Conv):
            channels, inner = int(product.tensor(0).shape[1]), int(product.tensor(1).shape[1])
            if product.op.group == channels > 1:
                return f"depthwise: bound by loads and memory, {rate:.0f} GB/s"
            if product.op.group > 1:
                return f"{product.op.group} groups of {inner} channels"
            if channels <= _FEW_CHANNELS:
                return f"first layer, {channels} channels"
        if isinstance(product.op, MatMul | Gemm):
            rows = prod(map(int, product.output().shape[:-1]))
            if rows <= _FEW_ROWS and rate >= SATISFYING * self.bandwidth:
                return f"{rows} row(s): bound by memory, {rate:.0f} of {self.bandwidth:.0f} GB/s"
        if self.seconds < _SMALL_SECONDS:
            return f"small work, {2e-6 * self.task.macs:.1f} MFLOP"
        return f"{_UNKNOWN}, {rate:.0f} of {self.bandwidth:.0f} GB/s"

    def row(self, index: int) -> list[str]:
        """Cells under the table's headings."""
        low = self.of_peak < SATISFYING
        shapes = [shape_text(v.type) for v in self.product.inputs[:2] if v is not None and v.type]
        return [
            str(index),
            self.step.node.name,
            self.step.node.op.kind,
            self.step.choice.scheme,
            config_text(self.step.choice.config),
            f"{' * '.join(shapes)} -> {shape_text(self.product.outputs[0])}",
            "low" if low else "",
            self.reason if low else "",
            f"{self.seconds * 1e6:.1f}",
            f"{self.step.choice.cost.seconds * 1e6:.1f}",
            f"{self.gflops:.1f}",
            f"{100 * self.of_peak:.0f}%",
        ]


def measure_layers(
    model: bytes, feeds: Arrays, backend: str, threads: int, repeats: int = 20
) -> list[Layer]:
    """Time every step of a plan of ours for the whole batch, with the peak before and after."""
    peak, bandwidth = measure_peak(threads), measure_bandwidth(threads)
    constraints = Constraints(parts=1)
    with Session(model, backend=backend, threads=threads, constraints=constraints) as session:
        executable = session.executable(feeds)
        times = time_steps(executable, feeds, threads, repeats)
        peak = max(peak, measure_peak(threads))
        return [
            Layer(step, _task(step, executable.values), seconds, peak, bandwidth)
            for step, seconds in zip(executable.plan.steps, times, strict=True)
        ]


def layer_page(layers: Sequence[Layer]) -> str:
    """A line per step that multiplies, the others by operator, and the totals."""
    products = [(i, layer) for i, layer in enumerate(layers) if layer.task.macs]
    headings = (*_COLUMNS, "below", "reason", *_NUMBERS)
    table = markdown_table(headings, [layer.row(i) for i, layer in products], names=8)
    others = [layer for layer in layers if not layer.task.macs]
    spent = {layer.step.node.op.kind: 0.0 for layer in others}
    for layer in others:
        spent[layer.step.node.op.kind] += layer.seconds * 1e6
    rows = [[kind, f"{us:.1f}"] for kind, us in sorted(spent.items(), key=lambda e: -e[1])]
    rest = [markdown_table(("other steps", "measured us"), rows)] if rows else []
    return "\n\n".join([table, *rest, bullets(_totals(layers))])


def _totals(layers: Sequence[Layer]) -> list[str]:
    peak = layers[0].peak
    seconds = sum(layer.seconds for layer in layers)
    predicted = sum(layer.step.choice.cost.seconds for layer in layers)
    macs = sum(layer.task.macs for layer in layers)
    rate = 2 * macs / seconds / 1e9
    low = [layer for layer in layers if layer.task.macs and layer.of_peak < SATISFYING]
    unknown = sum(layer.reason.startswith(_UNKNOWN) for layer in low)
    return [
        f"steps {seconds * 1e3:.2f} ms, predicted {predicted * 1e3:.2f} ms "
        f"({ratio(predicted / seconds)}); {macs / 1e6:,.0f} MMACs, {rate:.1f} GFLOP/s, "
        f"{100 * rate / peak:.0f}% of the peak of {peak:.0f}",
        f"below {SATISFYING:.0%} of the peak: {len(low)}, of these without a reason: {unknown}, "
        f"{1e3 * sum(layer.seconds for layer in low):.2f} ms together",
    ]


def write_layers(path: Path, facts: Sequence[str], pages: Mapping[str, str]) -> None:
    """Write the page ``layers.md``: facts, then a section per title."""
    parts = ["# Layers of our plans", bullets(facts)]
    for title, page in pages.items():
        parts += [f"## {title}", page]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())


def _task(step: Step, values: Mapping[str, Value]) -> Task:
    reads = tuple(None if name is None else _value(name, values) for name in step.node.inputs)
    return Task(step.node.op, reads, step.types)


def _value(name: str, values: Mapping[str, Value]) -> Value:
    """A value of the graph, which a plan may name with where its copy lies (``name@memory``)."""
    return values[name] if name in values else values[name.rsplit("@", 1)[0]]
