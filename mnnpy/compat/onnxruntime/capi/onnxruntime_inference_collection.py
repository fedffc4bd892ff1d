"""Where programs that import classes from the inside find them."""

from mnnpy.compat.onnxruntime.binding import IOBinding
from mnnpy.compat.onnxruntime.session import InferenceSession
from mnnpy.compat.onnxruntime.values import OrtDevice, OrtValue

__all__ = ["IOBinding", "InferenceSession", "OrtDevice", "OrtValue"]
