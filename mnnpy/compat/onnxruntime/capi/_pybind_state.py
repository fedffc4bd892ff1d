"""The same names under ONNX Runtime's other name for them."""

from mnnpy.compat.onnxruntime.capi.onnxruntime_pybind11_state import *  # noqa: F403
