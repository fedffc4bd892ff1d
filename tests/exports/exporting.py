"""Exporting one architecture: by torch's exporters, as halves and quantised."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch.utils._pytree import tree_leaves

from tests.exports.architecture import Architecture, Variant
from tests.exports.tables import ARCHITECTURES

OPSETS = {"torchscript": 17, "dynamo": 20}


class Flat(torch.nn.Module):
    """A module whose inputs come in order and whose outputs are tensors in a row."""

    def __init__(self, module: torch.nn.Module, names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.names is None:
            result = self.module(*inputs)
        else:
            result = self.module(**dict(zip(self.names, inputs, strict=True)))
        return tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))


def export_all(name: str, folder: Path, exporters: list[str]) -> None:
    """Write the inputs, and the models of all exporters and variants.

    Into the folder go ``EXPORTER[.VARIANT].onnx``, or a ``.error`` with the exporter's own message;
    ``0.npz``, ``1.npz``, ... with the inputs at each size; and ``other.npz`` with other values at
    the first size.
    """
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # One operator that no exporter knows.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    architecture = ARCHITECTURES[name]
    folder.mkdir(parents=True, exist_ok=True)
    for index, sizes in enumerate(architecture.sizes):
        np.savez(folder / f"{index}.npz", **architecture.feeds(sizes, seed=index))
    np.savez(folder / "other.npz", **architecture.feeds(architecture.sizes[0], seed=99))
    module = built(architecture, torch.float32)
    for exporter in exporters:
        path = folder / f"{exporter}.onnx"
        attempt(path, lambda path=path, e=exporter: export(architecture, module, e, path))
        for variant in architecture.variants:
            target = folder / f"{exporter}.{variant.replace(' ', '-')}.onnx"
            if path.exists():
                attempt(target, VARIANTS[variant](architecture, exporter, path, target))


def built(architecture: Architecture, dtype: torch.dtype) -> Flat:
    """The module with seeded weights, its batch statistics those of its own activations.

    Fresh modules are too simple to show mistakes: zero biases, unit or vanishing scales, zero
    heads. So parameters of one value are spread. Untouched batch statistics (mean 0, variance 1)
    let signals die or explode over many layers. Variances get a floor: what a channel that hardly
    varies is multiplied with would multiply rounding as well, layer after layer.
    """
    torch.manual_seed(0)
    names = tuple(architecture.inputs) if architecture.by_name else None
    module = Flat(architecture.build(), names).eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.min() == parameter.max():
            parameter.add_(0.1 * torch.randn_like(parameter))
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        module(*example(architecture))
    for norm in norms:
        norm.running_var.add_(0.3 * norm.running_var.mean())
    return module.eval().to(dtype)


def example(architecture: Architecture, dtype: torch.dtype = torch.float32) -> Any:
    feeds = architecture.feeds(architecture.sizes[0], seed=0).values()
    tensors = [torch.from_numpy(feed) for feed in feeds]
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in tensors)


def attempt(path: Path, write: Callable[[], None]) -> None:
    """Write a model, or the reason why there is none."""
    path.with_suffix(".error").unlink(missing_ok=True)
    try:
        write()
    except Exception as error:
        path.unlink(missing_ok=True)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        path.with_suffix(".error").write_text(f"{type(cause).__name__}: {cause}")


def export(
    architecture: Architecture,
    module: Flat,
    exporter: str,
    path: Path,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Export by one of torch's exporters, with every named dimension left open."""
    inputs = architecture.inputs
    if exporter == "torchscript":
        shapes: dict[str, Any] = {"dynamic_axes": {n: i.dynamic for n, i in inputs.items()}}
    else:
        auto = torch.export.Dim.AUTO
        shapes = {
            "dynamic_shapes": (tuple(dict.fromkeys(i.dynamic, auto) for i in inputs.values()),),
            "external_data": False,
        }
    with torch.no_grad():
        torch.onnx.export(
            module,
            example(architecture, dtype),
            str(path),
            input_names=list(inputs),
            opset_version=OPSETS[exporter],
            dynamo=exporter == "dynamo",
            verbose=False,
            **shapes,
        )


def half(
    architecture: Architecture, exporter: str, source: Path, target: Path
) -> Callable[[], None]:
    def write() -> None:
        module = built(architecture, torch.float16)
        export(architecture, module, exporter, target, torch.float16)

    return write


def dynamic_int8(
    architecture: Architecture, exporter: str, source: Path, target: Path
) -> Callable[[], None]:
    def write() -> None:
        model = onnx.load(source)
        model.graph.ClearField("value_info")  # The quantiser trips over shapes of weights in it.
        quantization.quantize_dynamic(model, target)

    return write


def static_qdq(
    architecture: Architecture, exporter: str, source: Path, target: Path
) -> Callable[[], None]:
    def write() -> None:
        prepared = target.with_suffix(".prepared")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(prepared, target, Samples(architecture))
        prepared.unlink()

    return write


class Samples(quantization.CalibrationDataReader):
    """A few inputs to see the ranges of activations on."""

    def __init__(self, architecture: Architecture) -> None:
        self._feeds: Iterator[Any] = iter(
            [architecture.feeds(architecture.sizes[0], seed) for seed in range(4)]
        )

    def get_next(self) -> Any:
        return next(self._feeds, None)


VARIANTS: dict[Variant, Callable[[Architecture, str, Path, Path], Callable[[], None]]] = {
    "float16": half,
    "dynamic int8": dynamic_int8,
    "static QDQ": static_qdq,
}
