"""OrtValue and OrtDevice: values with the device that they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from mnnpy.converter.onnx_types import dtype_of
from mnnpy.runtime.graph.types import STRING, Array, DType
from mnnpy.runtime.registry import why_unusable

_DEVICE_TYPES = {"cpu": 0, "cuda": 1, "gpu": 1}
_NVIDIA = 0x10DE


@dataclass(frozen=True, slots=True)
class OrtDevice:
    """Where a value lies: ``"cpu"`` or ``"cuda"``, and the number of that device."""

    name: str
    number: int = 0

    @staticmethod
    def make(ort_device_name: str, device_id: int, vendor_id: int = -1) -> OrtDevice:
        """A device by name. Raises ``Exception`` (as ONNX Runtime does) where there is no such."""
        if ort_device_name not in _DEVICE_TYPES:
            known = ", ".join(_DEVICE_TYPES)
            raise Exception(f"there is no device type {ort_device_name!r}; there are {known}")
        name = "cpu" if ort_device_name == "cpu" else "cuda"
        return OrtDevice(name, device_id)

    def device_id(self) -> int:
        return self.number

    def device_type(self) -> int:
        return _DEVICE_TYPES[self.name]

    def device_vendor_id(self) -> int:
        return 0 if self.name == "cpu" else _NVIDIA

    def device_mem_type(self) -> int:
        return 0

    def place(self, array: Array) -> Array:
        """The array on this device. Raises ``RuntimeError`` where it cannot be used here."""
        if self.name == "cpu":
            return np.ascontiguousarray(array).reshape(array.shape)
        reason = why_unusable("cuda")
        if reason is not None:
            raise RuntimeError(f"no memory on device 'cuda': {reason}")
        import cupy

        with cupy.cuda.Device(self.number):
            return cupy.asarray(array)


CPU = OrtDevice("cpu")


class OrtValue:
    """A value as sessions take and give it: a tensor on a device, a sequence, or nothing.

    Made by the class methods; ``content`` is an array of NumPy or CuPy, a list, or None.
    """

    __slots__ = ("content", "device")

    def __init__(self, content: Any, device: OrtDevice = CPU) -> None:
        self.content = content
        self.device = device

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: Array, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """A tensor of this content; on the CPU it shares the array's memory where that is dense.

        Raises
        ------
        RuntimeError
            Where it is no array of numbers, or the device cannot be used here.
        """
        device = OrtDevice.make(device_type, device_id, vendor_id)
        if not isinstance(numpy_obj, np.ndarray) or numpy_obj.dtype.kind in "OUS":
            raise RuntimeError(f"OrtValues are made of NumPy arrays of numbers, not {numpy_obj!r}")
        return cls(device.place(numpy_obj), device)

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: Array, /, onnx_element_type: int) -> OrtValue:
        """A tensor whose bytes mean elements of an ONNX type, as bfloat16 in ``uint16``."""
        return cls(CPU.place(data).view(dtype_of(onnx_element_type)))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: Any,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:
        """A tensor of zeros, of a NumPy dtype or the number of an ONNX element type.

        Raises
        ------
        RuntimeError
            Where a dimension is negative, or the device cannot be used here.
        """
        device = OrtDevice.make(device_type, device_id, vendor_id)
        if any(dim < 0 for dim in shape):
            raise RuntimeError(f"shape {list(shape)} has a negative dimension")
        return cls(device.place(np.zeros(tuple(shape), element_dtype(element_type))), device)

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """A tensor on the CPU that shares the memory of another package's."""
        return cls(np.from_dlpack(data))

    def data_ptr(self) -> int:
        """Address of a tensor's first element, on its device."""
        tensor = self._tensor()
        return int(tensor.ctypes.data if isinstance(tensor, np.ndarray) else tensor.data.ptr)

    def device_name(self) -> str:
        return self.device.name

    def shape(self) -> list[int]:
        return list(self._tensor().shape)

    def data_type(self) -> str:
        """The type as NodeArg has it, ``"tensor(float)"``."""
        if self.is_tensor():
            return f"tensor({element_text(self.content.dtype)})"
        if not self.is_tensor_sequence():
            return ""
        return f"seq({OrtValue(self.content[0]).data_type() if self.content else ''})"

    def element_type(self) -> int:
        """Number of a tensor's element type in ONNX."""
        return element_number(self._tensor().dtype)

    def tensor_size_in_bytes(self) -> int:
        return int(self._tensor().nbytes)

    def has_value(self) -> bool:
        return self.content is not None

    def is_tensor(self) -> bool:
        return hasattr(self.content, "dtype")

    def is_sparse_tensor(self) -> bool:
        """Never: sparse constants are dense once a model is read."""
        return False

    def is_tensor_sequence(self) -> bool:
        return isinstance(self.content, list)

    def numpy(self) -> Array:
        """A tensor as NumPy's array, on the CPU without a copy.

        Raises
        ------
        RuntimeError
            Where the value is no tensor.
        """
        tensor = self._tensor()
        return tensor.view() if isinstance(tensor, np.ndarray) else tensor.get()

    def update_inplace(self, data: Array) -> None:
        """Overwrite a tensor's content, whoever shares it.

        Raises
        ------
        RuntimeError
            Where number or type of the elements differ.
        """
        tensor = self._tensor()
        if data.size != tensor.size or data.dtype != tensor.dtype:
            raise RuntimeError(
                f"{data.size} elements of {data.dtype} do not replace {tensor.size} of "
                f"{tensor.dtype}"
            )
        tensor[...] = self.device.place(data).reshape(tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        return self._tensor().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._tensor().__dlpack_device__()
        return device

    def _tensor(self) -> Array:
        if not self.is_tensor():
            raise RuntimeError(f"the value is {self.data_type() or 'empty'}, not a tensor")
        return self.content


def element_dtype(element_type: Any) -> DType:
    """A dtype from what NumPy takes for one, or from the number of an ONNX element type."""
    if isinstance(element_type, int):
        return dtype_of(element_type)
    dtype = np.dtype(element_type)
    return STRING if dtype.kind in "US" else dtype


def element_number(dtype: DType) -> int:
    """Number of an element type in ONNX; 0 where ONNX has no such type."""
    if dtype.kind in "OUS":
        return int(onnx.TensorProto.STRING)
    try:
        number: int = onnx.helper.np_dtype_to_tensor_dtype(dtype.newbyteorder("="))
    except (KeyError, ValueError):
        return 0
    return number


def element_text(dtype: DType) -> str:
    """``"float"``, ``"int64"``, ...: an element type's name in ONNX, NumPy's where it has none."""
    number = element_number(dtype)
    return str(onnx.TensorProto.DataType.Name(number)).lower() if number else dtype.name
