"""Every architecture, by name."""

from __future__ import annotations

from tests.exports.architecture import Architecture
from tests.exports.detection import DETECTION
from tests.exports.language import LANGUAGE
from tests.exports.modules import MODULES
from tests.exports.speech import SPEECH
from tests.exports.vision import VISION

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry for entry in (*VISION, *DETECTION, *LANGUAGE, *SPEECH, *MODULES)
}
