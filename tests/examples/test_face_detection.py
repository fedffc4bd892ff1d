"""Ultraface, where its files are given: ``pytest --ultraface DIR``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mnnpy import Session
from mnnpy.runtime.registry import load_backend

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PHOTOS = ("1", "11", "25")
FACES = {"1": range(42, 50), "11": range(24, 28), "25": range(100, 140)}
"""How many faces are found: the photos show 49, 26 and some 150 people."""


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example as a module; examples are scripts, not part of the package."""
    pytest.importorskip("PIL", reason="the example needs Pillow")
    sys.path.insert(0, str(EXAMPLES))
    import face_detection

    yield face_detection
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def ultraface(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--ultraface")
    if folder is None:
        pytest.skip("needs the Ultraface model and photos: run with --ultraface DIR")
    return Path(folder)


BACKENDS = ["numpy", "numba", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(scope="module", params=BACKENDS)
def session(request: pytest.FixtureRequest, ultraface: Path) -> Session:
    reason = load_backend(request.param).check()
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return Session(ultraface / "version-RFB-320.onnx", backend=request.param)


@pytest.mark.parametrize("photo", PHOTOS)
def test_outputs(session: Session, ultraface: Path, example: ModuleType, photo: str) -> None:
    from PIL import Image

    with np.load(ultraface / f"{photo}.expected.npz") as expected:
        with Image.open(ultraface / f"{photo}.jpg") as opened:
            x = example.prepare(opened)
        np.testing.assert_array_equal(x, expected["input"])
        found = session.run(x)
        for name in ("scores", "boxes"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("photo", PHOTOS)
def test_faces_are_drawn(
    ultraface: Path,
    example: ModuleType,
    photo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from PIL import Image

    target = tmp_path / "faces.png"
    arguments = [ultraface / "version-RFB-320.onnx", ultraface / f"{photo}.jpg", "-o", target]
    monkeypatch.setattr(sys, "argv", ["face_detection.py", *map(str, arguments)])
    example.main()
    count = int(capsys.readouterr().out.split()[0])
    assert count in FACES[photo]
    with Image.open(ultraface / f"{photo}.jpg") as before, Image.open(target) as after:
        assert before.size == after.size
        lime = (np.asarray(after) == (0, 255, 0)).all(axis=2).sum()
    assert lime > 50 * count


def test_suppression(example: ModuleType) -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [1, 1, 3, 3], [5, 5, 6, 6]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.95], np.float32)
    assert example.suppress_overlapping(boxes, scores, 0.3) == [3, 1, 2]
    assert example.suppress_overlapping(boxes, scores, 0.1) == [3, 1]
    assert example.suppress_overlapping(boxes[:0], scores[:0], 0.3) == []


def test_no_faces(example: ModuleType) -> None:
    scores = np.tile(np.array([1, 0], np.float32), (1, 5, 1))
    assert example.find_faces(scores, np.zeros((1, 5, 4), np.float32), (320, 240)) == []
