"""The demo: handwritten digits, converted, planned, classified and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mnnpy.models import load_model
from mnnpy.runtime.errors import ConfigError
from mnnpy.runtime.files import write_atomically
from mnnpy.runtime.graph.graph import Graph
from mnnpy.session import Session

PIXEL_MAX = 16
_SCALE = 12
_MARGIN = 8
_CAPTION = 14


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The converted model and images that it was not trained on.

    Parameters
    ----------
    images : (count, 8, 8) uint8, 0 to 16.
    labels : (count,) the digit that each shows.
    """

    graph: Graph
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def feeds(self) -> NDArray[np.float32]:
        """The images as the model takes them: (count, 1, 8, 8), 0 to 1."""
        return self.images[:, None].astype(np.float32) / np.float32(PIXEL_MAX)


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """What one backend made of the images: digits, and the best seconds for one image and all."""

    backend: str
    predicted: NDArray[np.int64]
    accuracy: float
    seconds_one: float
    seconds_all: float


def load_digits(folder: Path) -> Digits:
    """The model and held-out digits of an examples folder.

    Raises
    ------
    ConfigError
        Where the folder does not hold them.
    """
    model, data = folder / "digits" / "digits.onnx", folder / "digits" / "heldout.npz"
    for path in (model, data):
        if not path.is_file():
            raise ConfigError(
                f"there is no {path}: run the demo in a checkout of the repository, "
                "or say where its examples folder is with --examples DIR"
            )
    with np.load(data) as heldout:
        return Digits(load_model(model), heldout["images"], heldout["labels"].astype(np.int64))


def classify(digits: Digits, backend: str, repeats: int = 10) -> Classified:
    """Classify all images on one backend."""
    session = Session(digits.graph, backend)
    feeds = digits.feeds()
    (probabilities,) = session.run(feeds).values()
    predicted = probabilities.argmax(axis=1)
    return Classified(
        backend,
        predicted,
        float((predicted == digits.labels).mean()),
        _best_seconds(session, feeds[:1], repeats),
        _best_seconds(session, feeds, repeats),
    )


def draw_digits(digits: Digits, predicted: NDArray[np.int64], path: Path, columns: int = 10) -> int:
    """Write a PNG of digits under their predictions, wrong ones (in red) first.

    Returns how many are drawn. Raises ``ConfigError`` where Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise ConfigError("the picture needs Pillow: pip install 'mnnpy[image]'") from None
    wrong = predicted != digits.labels
    shown = np.argsort(~wrong, kind="stable")[: 4 * columns]
    rows = -(-len(shown) // columns)
    tile = digits.images.shape[1] * _SCALE
    width, height = tile + _MARGIN, tile + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(shown):
        left = _MARGIN + place % columns * width
        top = _MARGIN + place // columns * height
        pixels = 255 - digits.images[index].astype(np.int64) * 255 // PIXEL_MAX
        picture = Image.fromarray(pixels.astype(np.uint8))
        sheet.paste(picture.resize((tile, tile), Image.Resampling.BOX), (left, top))
        text, colour = f"read {predicted[index]}", "black"
        if wrong[index]:
            text, colour = f"{text}, is {digits.labels[index]}", "red"
        draw.text((left, top + tile + 1), text, fill=colour)
    write_atomically(path, lambda file: sheet.save(file, format="PNG"))
    return len(shown)


def _best_seconds(session: Session, feeds: NDArray[np.float32], repeats: int) -> float:
    session.run(feeds)
    best = np.inf
    for _ in range(repeats):
        start = perf_counter()
        session.run(feeds)
        best = min(best, perf_counter() - start)
    return float(best)
