"""docs/operators.md and what the code has."""

from __future__ import annotations

import re

from tests.conformance.operators import DOCUMENT, LEFT_OUT, missing, supported


def test_the_document_lists_what_there_is() -> None:
    domain, listed = "", set()
    for line in DOCUMENT.read_text().splitlines():
        if title := re.match(r"## (\S+)", line):
            domain = title[1].replace("ai.onnx", "", 1) if title[1] == "ai.onnx" else title[1]
        elif row := re.match(r"\| `(\S+)` \|", line):
            listed.add((domain, row[1]))
    found = {key for key in listed if key[0] != "Left"}
    assert found == set(supported()), "run make docs-operators"
    assert {key[1] for key in listed - found} == {".".join(key) for key in LEFT_OUT}


def test_what_onnx_has_is_there_or_left_out_with_a_reason() -> None:
    assert missing() == set(LEFT_OUT)
