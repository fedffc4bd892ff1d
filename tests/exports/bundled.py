"""The nine architectures that the onnx package bundles with its backend tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx.backend import test


def bundled_models(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """(name, model, folder with its inputs), the inputs written as for the exported models."""
    light = Path(test.__file__).parent / "data" / "light"
    for model in sorted(light.glob("*.onnx")):
        target = folder / model.stem
        target.mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(("0", "other")):
            np.savez(target / f"{name}.npz", **_feeds(model, seed))
        yield model.stem.removeprefix("light_"), model, target


def _feeds(model: Path, seed: int) -> dict[str, np.ndarray]:
    graph = onnx.load(model).graph
    weights = {entry.name for entry in graph.initializer}
    random = np.random.default_rng(seed)
    return {
        entry.name: random.random(
            [d.dim_value for d in entry.type.tensor_type.shape.dim], dtype=np.float32
        )
        for entry in graph.input
        if entry.name not in weights
    }
