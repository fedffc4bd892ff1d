"""The inner modules of ONNX Runtime that programs import names from."""

from mnnpy.compat.onnxruntime.capi import _pybind_state, onnxruntime_pybind11_state

__all__ = ["_pybind_state", "onnxruntime_pybind11_state"]
