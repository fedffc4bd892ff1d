"""What each client is asked to do; run by the clients' own environment, as a program.

``python scenarios.py CLIENT RESULTS.json [BACKEND]`` writes what the client found: texts and whole
numbers, which must be equal on both sides, and floats, which may differ a little. Clients ship
their models in their wheels. With a backend, ONNX Runtime has no sessions.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np


def _magika() -> Callable[[], Any]:
    """File types by content (Google)."""
    from magika import Magika

    client = Magika()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("a.txt"), "text " * 100)
    contents = [
        Path(__file__).read_bytes(),
        b'{"name": "magika", "numbers": [1, 2, 3], "nested": {"a": null}}\n' * 20,
        b"<!DOCTYPE html><html><head><title>t</title></head><body><p>text</p></body></html>" * 9,
        b'#include <stdio.h>\nint main(void) { printf("%d\\n", 42); return 0; }\n' * 9,
        b"SELECT name, count(*) FROM clients WHERE id > 7 GROUP BY name;\n" * 20,
        b"# Title\n\nSome *text* with a [link](https://example.org).\n\n- one\n- two\n" * 9,
        b"body { color: #333; margin: 0 auto } .a > .b { display: none }\n" * 20,
        b'[package]\nname = "a"\nversion = "1.0"\n[dependencies]\nserde = "1"\n' * 9,
        bytes(range(256)) * 16,
        archive.getvalue(),
    ]

    def use() -> Any:
        found = [client.identify_bytes(content) for content in contents]
        return [(str(each.output.label), float(each.score)) for each in found]

    return use


def _ddddocr(beta: bool = False) -> Callable[[], Any]:
    """Short codes in pictures, by a quantised model or a larger one of floats."""
    from ddddocr import DdddOcr

    client = DdddOcr(show_ad=False, beta=beta)
    pictures = [_png(_text([code], 40)) for code in ("7xK4", "MNN9", "a3B8", "hello", "20485")]

    def use() -> Any:
        found = [client.classification(picture, probability=True) for picture in pictures]
        return [
            (each["text"], each["confidence"], _numbers(each["probabilities"])) for each in found
        ]

    return use


def _ddddocr_detection() -> Callable[[], Any]:
    """Where texts stand in a picture."""
    from ddddocr import DdddOcr

    client = DdddOcr(show_ad=False, ocr=False, det=True)
    picture = _png(_text(["first line", "42 and 7", "the last"], 40))
    return lambda: client.detection(picture)


_LINES = ["Deep networks", "run anywhere 2048", "Total: 137.50 EUR", "mnnpy@example.org"]


def _rapidocr_onnxruntime() -> Callable[[], Any]:
    """Texts in pictures: detection, orientation and recognition (PaddleOCR v4)."""
    from rapidocr_onnxruntime import RapidOCR

    client = RapidOCR()
    picture = np.asarray(_text(_LINES, 36))

    def use() -> Any:
        lines, _ = client(picture)
        return [(text, float(score), _numbers(box)) for box, text, score in lines]

    return use


def _rapidocr() -> Callable[[], Any]:
    """Texts in pictures: detection, orientation and recognition (PaddleOCR v6)."""
    from rapidocr import RapidOCR

    client = RapidOCR()
    picture = np.asarray(_text(_LINES, 36))

    def use() -> Any:
        found = client(picture)
        return list(found.txts), _numbers(found.scores), _numbers(found.boxes)

    return use


def _rapid_layout() -> Callable[[], Any]:
    """Parts of a page: titles, texts, tables."""
    from rapid_layout import RapidLayout

    client = RapidLayout()
    lines = [
        "A title",
        "",
        *["words of a paragraph that goes on and on"] * 6,
        "",
        *["1   2   3"] * 4,
    ]
    picture = np.asarray(_text(lines, 24))

    def use() -> Any:
        found = client(picture)
        return list(found.class_names), _numbers(found.scores), _numbers(found.boxes)

    return use


def _nudenet() -> Callable[[], Any]:
    """Faces and bodies in photographs; the photograph comes with scikit-image."""
    from nudenet import NudeDetector
    from skimage import data

    client = NudeDetector()
    picture = np.ascontiguousarray(data.astronaut()[..., ::-1])

    def use() -> Any:
        return [(f["class"], float(f["score"]), f["box"]) for f in client.detect(picture)]

    return use


def _silero_vad() -> Callable[[], Any]:
    """Speech in a recording, here a buzz that comes and goes; needs torch."""
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    client = load_silero_vad(onnx=True)
    recordings = {rate: torch.from_numpy(_buzz(rate)) for rate in (16000, 8000)}

    def use() -> Any:
        found = []
        for rate, recording in recordings.items():
            client.reset_states()
            found.append(client.audio_forward(recording, rate).numpy().tolist())
            found.append(
                get_speech_timestamps(recording, client, sampling_rate=rate, threshold=0.2)
            )
        return found

    return use


SCENARIOS: dict[str, Callable[[], Callable[[], Any]]] = {
    "magika": _magika,
    "ddddocr": _ddddocr,
    "ddddocr beta": lambda: _ddddocr(beta=True),
    "ddddocr detection": _ddddocr_detection,
    "rapidocr-onnxruntime": _rapidocr_onnxruntime,
    "rapidocr": _rapidocr,
    "rapid-layout": _rapid_layout,
    "nudenet": _nudenet,
    "silero-vad": _silero_vad,
}


TOLERANCES = {"ddddocr": 0.1}
"""Where floats may differ by more than 1e-4. ONNX Runtime quantises what goes into this model's
DynamicQuantizeLSTM; here only its weights are quantised, which moves probabilities by some 0.04."""


def _text(lines: list[str], size: int) -> Any:
    """A white picture of black lines."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    width = int(max(font.getlength(line) for line in lines)) + 2 * size
    picture = Image.new("RGB", (width, size * (3 * len(lines) + 1) // 2 + size // 2), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(picture).text((size, size // 2 + row * 3 * size // 2), line, "black", font)
    return picture


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def _buzz(rate: int) -> np.ndarray[Any, Any]:
    """Four seconds: a pulse train through three resonances, like a vowel, in every other half."""
    time = np.arange(4 * rate) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * time)
    pulses = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0.0)
    sound = np.zeros_like(time)
    for formant, width in ((700, 80), (1220, 90), (2600, 120)):
        ring = np.exp(-np.pi * width * time[: rate // 20]) * np.sin(
            2 * np.pi * formant * time[: rate // 20]
        )
        sound += np.convolve(pulses, ring)[: time.size]
    sound *= (time % 1 < 0.6) * 0.3 / np.abs(sound).max()
    noise = np.random.default_rng(0).standard_normal(time.size) * 1e-3
    return (sound + noise).astype(np.float32)


def _numbers(values: Any) -> Any:
    """Arrays and NumPy's numbers, however nested, as lists of Python's."""
    if isinstance(values, dict):
        return {str(key): _numbers(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_numbers(value) for value in values]
    return values.tolist() if hasattr(values, "tolist") else values


def main() -> None:
    name, results, *backend = sys.argv[1:]
    if backend:
        import onnxruntime

        from mnnpy.compat.onnxruntime import providers

        onnxruntime.InferenceSession = None
        if backend[0] != "auto":
            providers.Providers.backend = backend[0]  # type: ignore[assignment, misc]
    logging.disable(logging.WARNING)
    began = perf_counter()
    use = SCENARIOS[name]()
    opened = perf_counter()
    use()
    first = perf_counter()
    found = _numbers(use())
    seconds = [opened - began, first - opened, perf_counter() - first]
    Path(results).write_text(json.dumps({"found": found, "seconds": seconds}))


if __name__ == "__main__":
    main()
