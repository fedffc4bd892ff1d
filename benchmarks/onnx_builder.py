"""A builder that writes networks with random weights as ONNX graphs, layer by layer.

Random weights are easily degenerate: activations explode or vanish with depth, or the answer hardly
depends on the input. So each convolution is calibrated while it is built. The builder carries a
*probe* along, a cloud of random pixels that stands for the feature map, and takes the scale of the
weights and the batch normalization statistics from the response to windows of such pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

Array = NDArray[np.float32]
Activation = Literal["Relu", "Clip6"]
Size = int | tuple[int, int]

PROBE_PIXELS = 256


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class Builder:
    """Writes an ONNX graph layer by layer; values are referred to by their names.

    Parameters
    ----------
    name : of the graph.
    seed : of the weights.

    Attributes
    ----------
    shapes : shape of each value, without the batch dimension.
    parameters, macs : learned parameters and multiply-adds of one sample, so far.
    epsilon : of the batch normalizations to come.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = helper.make_model(
            helper.make_graph([], name, [], []),
            producer_name="mnnpy-benchmarks",
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parameters = 0
        self.macs = 0
        self.epsilon = 1e-5
        self._probes: dict[str, Array] = {}
        self._constants: set[str] = set()

    def input(self, name: str, batch: int | str, shape: tuple[int, ...]) -> str:
        """Declare the input, whose values are taken to be standard normal."""
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, *shape])
        self.model.graph.input.append(value)
        self.shapes[name] = shape
        if len(shape) == 3:  # An image.
            self._probes[name] = self.normal(shape[0], PROBE_PIXELS)
        return name

    def finish(self, value: str, name: str, batch: int | str) -> onnx.ModelProto:
        """Make ``value``, which the last node computes, the output called ``name``."""
        graph = self.model.graph
        graph.node[-1].output[0] = name
        shape = [batch, *self.shapes[value]]
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        counts = {"parameters": str(self.parameters), "macs": str(self.macs)}
        helper.set_model_props(self.model, counts)
        return self.model

    # Plain ONNX.

    def node(
        self, op: str, *inputs: str, shape: tuple[int, ...] | None = None, **attributes: Any
    ) -> str:
        """Append a node; its shape is that of its largest input unless ``shape`` says otherwise."""
        nodes = self.model.graph.node
        name = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        self.shapes[name] = shape or max((self.shapes.get(i, ()) for i in inputs), key=len)
        return name

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Store an initializer; one that is asked for again under the same name is shared."""
        if name not in self._constants:
            self._constants.add(name)
            self.model.graph.initializer.add(  # In place: a TensorProto would be copied.
                name=name,
                dims=value.shape,
                data_type=helper.np_dtype_to_tensor_dtype(value.dtype),
                raw_data=value.tobytes(),
            )
        return name

    def scalar(self, value: float) -> str:
        """Store a number."""
        return self.constant(f"scalar_{value}", np.array(value, np.float32))

    def parameter(self, role: str, value: Array) -> str:
        """Store a learned array."""
        self.parameters += value.size
        return self.constant(f"{role}_{len(self._constants)}", value)

    def normal(self, *shape: int, std: float = 1.0) -> Array:
        """Draw normally distributed numbers."""
        values = self.rng.standard_normal(shape, np.float32)
        return values if std == 1 else np.multiply(values, np.float32(std), out=values)

    # Layers of image networks.

    def conv(
        self,
        x: str,
        channels: int,
        kernel: Size = 3,
        stride: int = 1,
        pad: Size | None = None,
        *,
        group: int = 1,
        bn: bool = True,
        act: Activation | None = "Relu",
        gamma: float = 1.0,
    ) -> str:
        """Convolution, then batch normalization (or else a bias), then activation.

        Parameters
        ----------
        pad : keeps the size of the map at stride 1 unless given.
        bn : whether a batch normalization follows; a convolution without one has a bias.
        gamma : mean scale of the batch normalization.
        """
        kernel = _pair(kernel)
        pad = (kernel[0] // 2, kernel[1] // 2) if pad is None else _pair(pad)
        weight = self.normal(channels, self.shapes[x][0] // group, *kernel)
        windows = self._windows(x, math.prod(kernel)).reshape(group, -1, PROBE_PIXELS)
        response = (weight.reshape(group, channels // group, -1) @ windows).reshape(channels, -1)
        norm = response.std()
        weight /= norm
        response /= norm
        mean, var = response.mean(axis=1), response.var(axis=1)
        response -= mean[:, None]
        shift = self.normal(channels, std=0.2)

        inputs = [x, self.parameter("weight", weight)]
        if not bn:
            inputs.append(self.parameter("bias", shift - mean))
        shape = (channels, *self._map_size(x, kernel, stride, pad))
        self.macs += weight.size * math.prod(shape[1:])
        window = {"kernel_shape": kernel, "strides": _pair(stride), "pads": pad * 2}
        y = self.node("Conv", *inputs, shape=shape, group=group, **window)
        if bn:
            scale = self.rng.uniform(0.8 * gamma, 1.2 * gamma, channels).astype(np.float32)
            response *= (scale / np.sqrt(var + self.epsilon))[:, None]
            learned = (self.parameter("gamma", scale), self.parameter("beta", shift))
            moments = (self.constant(f"{y}_mean", mean), self.constant(f"{y}_var", var))
            y = self.node("BatchNormalization", y, *learned, *moments, epsilon=self.epsilon)
        self._probes[y] = response + shift[:, None]
        return self.activation(y, act)

    def depthwise(self, x: str, stride: int, act: Activation) -> str:
        """3x3 depthwise convolution with batch normalization."""
        channels = self.shapes[x][0]
        return self.conv(x, channels, 3, stride, group=channels, act=act)

    def activation(self, x: str, act: Activation | None) -> str:
        """ReLU, ReLU6 or nothing."""
        if act is None:
            return x
        if act == "Relu":
            y = self.node("Relu", x)
        else:
            y = self.node("Clip", x, self.scalar(0), self.scalar(6))
        self._probes[y] = self._probes[x].clip(0, 6 if act == "Clip6" else None)
        return y

    def max_pool(
        self, x: str, kernel: int, stride: int, pad: int = 0, *, ceil: bool = False
    ) -> str:
        """Max pooling; ``ceil`` rounds the size of the map up."""
        y = self._pool("MaxPool", x, kernel, stride, pad, ceil_mode=int(ceil))
        self._probes[y] = self._windows(x, kernel**2).max(axis=1)
        return y

    def avg_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        """Average pooling; the padding counts, as in torch."""
        y = self._pool("AveragePool", x, kernel, stride, pad, count_include_pad=1)
        self._probes[y] = self._probes[x]  # As if the map were smooth: shrinking less is stable.
        return y

    def add(self, x: str, y: str, act: Activation | None = None) -> str:
        """Sum of two maps, then activation."""
        total = self.node("Add", x, y)
        self._probes[total] = self._probes[x] + self._probes[y]
        return self.activation(total, act)

    def concat(self, *maps: str) -> str:
        """Join maps along their channels."""
        channels = sum(self.shapes[x][0] for x in maps)
        y = self.node("Concat", *maps, shape=(channels, *self.shapes[maps[0]][1:]), axis=1)
        self._probes[y] = np.concatenate([self._probes[x] for x in maps])
        return y

    def global_pool(self, x: str) -> str:
        """Average over the whole map, flattened to a vector."""
        y = self.node("GlobalAveragePool", x, shape=(self.shapes[x][0], 1, 1))
        return self.flatten(y)

    def flatten(self, x: str) -> str:
        """Flatten a map to a vector."""
        return self.node("Flatten", x, shape=(math.prod(self.shapes[x]),), axis=1)

    def fc(self, x: str, outputs: int, act: Literal["Relu"] | None = None) -> str:
        """Fully connected layer on a vector."""
        (inputs,) = self.shapes[x]
        weight = self.parameter("weight", self.normal(outputs, inputs, std=inputs**-0.5))
        bias = self.parameter("bias", self.normal(outputs, std=0.1))
        self.macs += inputs * outputs
        y = self.node("Gemm", x, weight, bias, shape=(outputs,), transB=1)
        return self.node(act, y) if act else y

    def _pool(self, op: str, x: str, kernel: int, stride: int, pad: int, **attributes: int) -> str:
        round_up = bool(attributes.get("ceil_mode"))
        size = self._map_size(x, _pair(kernel), stride, _pair(pad), ceil=round_up)
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self.node(op, x, shape=(self.shapes[x][0], *size), **window, **attributes)

    def _map_size(
        self, x: str, kernel: Sequence[int], stride: int, pad: Sequence[int], *, ceil: bool = False
    ) -> list[int]:
        extra = stride - 1 if ceil else 0
        sizes = zip(self.shapes[x][1:], kernel, pad, strict=True)
        return [(size + 2 * p - k + extra) // stride + 1 for size, k, p in sizes]

    def _windows(self, x: str, taps: int) -> Array:
        """Gather windows of random pixels from the probe of ``x``: (channel, tap, pixel)."""
        order = np.tile(np.arange(PROBE_PIXELS), (taps, 1))
        return self._probes[x][:, self.rng.permuted(order, axis=1)]

    # Layers of transformers.

    def linear(self, x: str, outputs: int, gain: float = 1.0) -> str:
        """Linear layer on a sequence; the response to a normalized input has the std ``gain``."""
        sequence, inputs = self.shapes[x]
        weight = self.parameter("weight", self.normal(inputs, outputs, std=gain * inputs**-0.5))
        bias = self.parameter("bias", self.normal(outputs, std=0.1))
        self.macs += sequence * inputs * outputs
        return self.node("Add", bias, self.node("MatMul", x, weight, shape=(sequence, outputs)))

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape, keeping the batch and the next dimension."""
        target = self.constant("shape_" + "x".join(map(str, shape)), np.array([0, 0, *shape]))
        return self.node("Reshape", x, target, shape=(self.shapes[x][0], *shape))

    def transpose(self, x: str, *perm: int) -> str:
        """Permute the axes; the batch is axis 0 and stays in place."""
        shape = tuple(self.shapes[x][axis - 1] for axis in perm[1:])
        return self.node("Transpose", x, shape=shape, perm=perm)

    def attention(self, x: str, heads: int) -> str:
        """Multi-head self-attention."""
        sequence, width = self.shapes[x]
        depth = width // heads
        sharp = 2**0.5  # Scores of standard deviation two, so that attention is not uniform.
        query = self.transpose(self.reshape(self.linear(x, width, sharp), heads, depth), 0, 2, 1, 3)
        key = self.transpose(self.reshape(self.linear(x, width, sharp), heads, depth), 0, 2, 3, 1)
        value = self.transpose(self.reshape(self.linear(x, width), heads, depth), 0, 2, 1, 3)
        scores = self.node("MatMul", query, key, shape=(heads, sequence, sequence))
        scores = self.node("Div", scores, self.scalar(math.sqrt(depth)))
        weights = self.node("Softmax", scores, axis=-1)
        context = self.node("MatMul", weights, value, shape=self.shapes[value])
        self.macs += 2 * sequence * sequence * width
        return self.linear(self.reshape(self.transpose(context, 0, 2, 1, 3), width), width)

    def gelu(self, x: str) -> str:
        """Exact GELU, spelled with Erf."""
        erf = self.node("Erf", self.node("Div", x, self.scalar(math.sqrt(2))))
        doubled = self.node("Mul", x, self.node("Add", erf, self.scalar(1)))
        return self.node("Mul", doubled, self.scalar(0.5))

    def layer_norm(self, x: str) -> str:
        """Layer normalization over the features."""
        width = self.shapes[x][-1]
        scale = self.parameter("gamma", 1 + self.normal(width, std=0.1))
        bias = self.parameter("beta", self.normal(width, std=0.1))
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)
