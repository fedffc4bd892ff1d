"""IOBinding: inputs and outputs that are bound once and used by many runs."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnpy.compat.onnxruntime.values import CPU, OrtDevice, OrtValue, element_dtype, element_text
from mnnpy.runtime.errors import MnnpyError
from mnnpy.runtime.graph.types import STRING, Array

if TYPE_CHECKING:
    from mnnpy.compat.onnxruntime.options import RunOptions
    from mnnpy.compat.onnxruntime.session import InferenceSession


class IOBinding:
    """Inputs and outputs of a session's :meth:`InferenceSession.run_with_iobinding`.

    A run reads the bound memory as it is then, and writes results into the memory that is bound
    for them; where none is, into memory of its own.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._inputs: dict[str, OrtValue] = {}
        self._targets: dict[str, tuple[OrtDevice, Array | None]] = {}
        self._outputs: dict[str, OrtValue] = {}

    def bind_cpu_input(self, name: str, arr_on_cpu: Array) -> None:
        """Feed an array. Raises ``RuntimeError`` where it is none, or the input does not exist."""
        if not isinstance(arr_on_cpu, np.ndarray):
            raise RuntimeError(f"input {name!r}: {arr_on_cpu!r} is no NumPy array")
        self.bind_ortvalue_input(name, OrtValue(arr_on_cpu))

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Feed memory by its address; it belongs to the caller and must outlive the runs."""
        device = OrtDevice.make(device_type, device_id)
        content = _array_at(device, buffer_ptr, element_type, shape)
        self.bind_ortvalue_input(name, OrtValue(content, device))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Feed a value. Raises ``RuntimeError`` where the input does not exist."""
        session = self._session
        known = [
            arg.name for arg in (*session.get_inputs(), *session.get_overridable_initializers())
        ]
        if name not in known:
            raise RuntimeError(f"there is no input {name!r}; there are {known}")
        self._inputs[name] = ortvalue

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output, on a device or in memory that is given by its address.

        Where the session runs on the CPU only, it lies there whatever is asked for.
        """
        device = OrtDevice.make(device_type, device_id)
        if buffer_ptr is not None:
            target = _array_at(device, buffer_ptr, element_type, shape or ())
            self._targets[name] = (device, target)
        elif self._session.get_providers() == ["CPUExecutionProvider"]:
            self._targets[name] = (CPU, None)
        else:
            self._targets[name] = (device, None)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Ask for an output in the memory of a tensor."""
        self._targets[name] = (ortvalue.device, ortvalue.content)

    def synchronize_inputs(self) -> None:
        """Nothing to wait for: a run reads its inputs when it starts."""

    def synchronize_outputs(self) -> None:
        """Nothing to wait for: results are there when a run returns."""

    def get_outputs(self) -> list[OrtValue]:
        """The outputs in the order they were bound; before a run they hold nothing."""
        return [self._outputs.get(name, OrtValue(None)) for name in self._targets]

    def get_outputs_as_ortvaluevector(self) -> list[OrtValue]:
        return self.get_outputs()

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs' content, tensors as NumPy arrays of the caller's own."""
        return [v.numpy().copy() if v.is_tensor() else v.content for v in self.get_outputs()]

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        self._targets.clear()
        self._outputs.clear()

    def run(self, run_options: RunOptions | None) -> None:
        """Run the session on what is bound.

        Raises
        ------
        RuntimeError
            For whatever goes wrong, as ONNX Runtime does.
        """
        if not self._targets:
            raise RuntimeError("no output is bound: bind at least one")
        try:
            results = self._session.run(list(self._targets), self._inputs, run_options)
        except (MnnpyError, ValueError) as error:
            raise RuntimeError(f"the bound run failed: {error}") from error
        for (name, (device, target)), result in zip(self._targets.items(), results, strict=True):
            self._outputs[name] = _delivered(name, result, device, target)


def _delivered(name: str, result: Any, device: OrtDevice, target: Array | None) -> OrtValue:
    """A result in the memory that is bound for it."""
    if target is None:
        if device == CPU or not isinstance(result, np.ndarray) or result.dtype == STRING:
            return OrtValue(result)
        return OrtValue(device.place(result), device)
    if (target.dtype, target.shape) != (result.dtype, result.shape):
        raise RuntimeError(
            f"output {name!r} is tensor({element_text(result.dtype)}) {list(result.shape)}, bound "
            f"is memory for tensor({element_text(target.dtype)}) {list(target.shape)}"
        )
    target[...] = device.place(result)
    return OrtValue(target, device)


def _array_at(device: OrtDevice, address: int, element_type: Any, shape: Sequence[int]) -> Array:
    """An array over memory that belongs to someone else."""
    dtype = element_dtype(element_type)
    nbytes = math.prod(shape) * dtype.itemsize
    if device.name == "cpu":
        memory = (ctypes.c_char * nbytes).from_address(address)
        return np.frombuffer(memoryview(memory), dtype).reshape(tuple(shape))
    import cupy

    owned = cupy.cuda.UnownedMemory(address, nbytes, None, device.number)
    return cupy.ndarray(tuple(shape), dtype, cupy.cuda.MemoryPointer(owned, 0))
