"""Schemes: one file per algorithm. A scheme knows arithmetic, no device and no threshold."""

from __future__ import annotations

from mnnpy.runtime.contracts import Scheme
from mnnpy.schemes.concat import ConcatInPlace
from mnnpy.schemes.conv_depthwise import ConvDepthwise
from mnnpy.schemes.conv_im2col import ConvIm2col
from mnnpy.schemes.conv_pointwise import ConvPointwise
from mnnpy.schemes.conv_sliding_window import ConvSlidingWindow
from mnnpy.schemes.conv_transposed import ConvTransposed
from mnnpy.schemes.conv_winograd import ConvWinograd
from mnnpy.schemes.elementwise import ElementwiseInPlace
from mnnpy.schemes.matmul_direct import MatMulDirect
from mnnpy.schemes.matmul_strassen import MatMulStrassen
from mnnpy.schemes.pool_separable import PoolSeparable
from mnnpy.schemes.reference import Reference
from mnnpy.schemes.view import View

SCHEMES: tuple[Scheme, ...] = (
    ConvSlidingWindow(),
    ConvIm2col(),
    ConvPointwise(),
    ConvWinograd(),
    ConvDepthwise(),
    ConvTransposed(),
    MatMulDirect(),
    MatMulStrassen(),
    PoolSeparable(),
    ElementwiseInPlace(),
    ConcatInPlace(),
    View(),
    Reference(),
)
