"""ONNX Runtime's Python interface over mnnpy; ``docs/onnxruntime.md`` says what maps to what.

::

    from mnnpy.compat import onnxruntime as ort

    session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"pixels": pixels})
"""

from mnnpy.compat.onnxruntime import capi
from mnnpy.compat.onnxruntime.binding import IOBinding
from mnnpy.compat.onnxruntime.logs import (
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_version_string,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_seed,
)
from mnnpy.compat.onnxruntime.model import ModelMetadata, NodeArg
from mnnpy.compat.onnxruntime.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    RunOptions,
    SessionOptions,
)
from mnnpy.compat.onnxruntime.providers import (
    get_all_providers,
    get_available_providers,
    get_device,
)
from mnnpy.compat.onnxruntime.session import InferenceSession
from mnnpy.compat.onnxruntime.values import OrtDevice, OrtValue

__version__ = get_version_string()

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtDevice",
    "OrtValue",
    "RunOptions",
    "SessionOptions",
    "__version__",
    "capi",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]
