"""Backends that compute as NumPy's does, but for a planted mistake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mnnpy.backends.numpy_cpu.backend import NumpyBackend
from mnnpy.runtime.contracts import BoundStep, Kernel, Program, Run
from mnnpy.runtime.devices import Coefficients, Device
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.graph.types import Array
from mnnpy.runtime.ops.fused import Fused
from mnnpy.runtime.programs import SequentialProgram


class WrongBackend(NumpyBackend):
    """Spoils the results of steps that ``is_wrong``. A memory of its own keeps others out."""

    def describe(self) -> Device:
        cheap = {"*": Coefficients(0, 1e-18, 0)}
        return replace(
            NumpyBackend().describe(), name=self.name, memory=self.name, coefficients=cheap
        )

    def bind(self, steps: Sequence[BoundStep], threads: int | None) -> Program:
        return SequentialProgram([self._perhaps_spoilt(step, self._bind(step)) for step in steps])

    def _perhaps_spoilt(self, step: BoundStep, run: Run) -> Run:
        if not self.is_wrong(step):
            return run

        def spoilt() -> None:
            run()
            self.spoil(step.buffers.outputs[0])

        return spoilt

    def is_wrong(self, step: BoundStep) -> bool:
        raise NotImplementedError

    def spoil(self, y: Array) -> None:
        y[..., 0] += 0.25


class WrongSeventhConv(WrongBackend):
    name = "wrong_conv"

    def is_wrong(self, step: BoundStep) -> bool:
        return step.node.name == "conv6"


class WrongSoftmax(WrongBackend):
    name = "wrong_softmax"

    def is_wrong(self, step: BoundStep) -> bool:
        return step.node.op.kind == "Softmax"


class WrongBelowZero(WrongBackend):
    """Wrong where a Relu hides it."""

    name = "wrong_below_zero"

    def is_wrong(self, step: BoundStep) -> bool:
        return step.node.name == "conv6"

    def spoil(self, y: Array) -> None:
        y[y < 0] *= 2

    def kernels(self, op: Op) -> Sequence[Kernel]:
        return () if isinstance(op, Fused) else super().kernels(op)


class WrongBatch(WrongBackend):
    """Wrong for a batch of three."""

    name = "wrong_batch"

    def is_wrong(self, step: BoundStep) -> bool:
        return step.node.name == "conv6" and step.task.output().shape[0] == 3


class WrongNowhere(WrongBackend):
    name = "wrong_nowhere"

    def is_wrong(self, step: BoundStep) -> bool:
        return False


BACKENDS = {
    kind.name: f"{__name__}:{kind.__name__}"
    for kind in (WrongSeventhConv, WrongSoftmax, WrongBelowZero, WrongBatch, WrongNowhere)
}
