"""Find faces in a photo with Ultraface RFB-320 and draw boxes around them.

The model is in the ONNX model zoo (``version-RFB-320.onnx``, by Linzaer, MIT licence)::

    pip install 'mnnpy[image]'
    python face_detection.py version-RFB-320.onnx photo.jpg -o faces.jpg
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mnnpy import Session

WIDTH, HEIGHT = 320, 240
MEAN, SCALE = 127.0, 1 / 128
"""What the model was trained with: pixels become (pixel - 127) / 128."""


@dataclass(frozen=True)
class Face:
    """A face found in a photo.

    Parameters
    ----------
    box : left, top, right, bottom in pixels of the photo.
    score : how sure the model is, 0 to 1.
    """

    box: tuple[float, float, float, float]
    score: float


def prepare(photo: Image.Image) -> NDArray[np.float32]:
    """The photo as the model takes it: (1, 3, 240, 320), RGB, about -1 to 1."""
    resized = photo.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    pixels = (np.asarray(resized, dtype=np.float32) - MEAN) * np.float32(SCALE)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def find_faces(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    threshold: float = 0.7,
    max_overlap: float = 0.3,
) -> list[Face]:
    """Faces from the model's outputs, the surest first.

    Parameters
    ----------
    scores : (1, n, 2), probabilities of background and face for each of n anchors.
    boxes : (1, n, 4), left, top, right, bottom as parts of the picture.
    size : width and height of the photo.
    threshold : smallest score of a face.
    max_overlap : intersection over union from which two boxes are the same face.
    """
    sure = scores[0, :, 1] >= threshold
    kept_scores, kept_boxes = scores[0, sure, 1], np.clip(boxes[0, sure], 0, 1)
    kept = suppress_overlapping(kept_boxes, kept_scores, max_overlap)
    pixels = kept_boxes * np.array([*size, *size], dtype=np.float32)
    faces = []
    for index in kept:
        left, top, right, bottom = pixels[index].tolist()
        faces.append(Face((left, top, right, bottom), float(kept_scores[index])))
    return faces


def suppress_overlapping(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], max_overlap: float
) -> list[int]:
    """Non-maximum suppression: of boxes that overlap, keep the one of highest score.

    Parameters
    ----------
    boxes : (n, 4), left, top, right, bottom.
    scores : (n,)

    Returns
    -------
    Positions of what is kept, by falling score.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[waiting, :2])
        sides = np.maximum(np.minimum(boxes[best, 2:], boxes[waiting, 2:]) - corner, 0)
        common = sides[:, 0] * sides[:, 1]
        waiting = waiting[common <= max_overlap * (areas[best] + areas[waiting] - common)]
    return kept


def draw_faces(photo: Image.Image, faces: list[Face]) -> Image.Image:
    """A copy of the photo with a box and a score at every face."""
    drawn = photo.convert("RGB")
    draw = ImageDraw.Draw(drawn)
    line = max(2, min(photo.size) // 250)
    for face in faces:
        left, top, _, _ = face.box
        draw.rectangle(face.box, outline="lime", width=line)
        draw.text((left, max(top - 11, 0)), f"{face.score:.0%}", fill="lime")
    return drawn


def detect(session: Session, photo: Image.Image, threshold: float = 0.7) -> list[Face]:
    """Faces of one photo."""
    outputs = session.run(prepare(photo))
    return find_faces(outputs["scores"], outputs["boxes"], photo.size, threshold)


def main() -> None:
    parser = argparse.ArgumentParser(description="Find faces in a photo with Ultraface RFB-320.")
    parser.add_argument("model", type=Path, help="version-RFB-320.onnx, or converted to .mnnpy")
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("faces.png"))
    parser.add_argument("--backend", default="auto", help="auto, numpy, numba or cuda")
    parser.add_argument("--threshold", type=float, default=0.7, help="smallest score of a face")
    options = parser.parse_args()
    photo = Image.open(options.photo)
    with Session(options.model, backend=options.backend) as session:
        faces = detect(session, photo, options.threshold)
    draw_faces(photo, faces).save(options.output)
    print(f"{len(faces)} faces in {options.photo}, drawn in {options.output}")
    for face in faces:
        left, top, right, bottom = (round(side) for side in face.box)
        print(f"  {face.score:.1%} at ({left}, {top}) to ({right}, {bottom})")


if __name__ == "__main__":
    main()
