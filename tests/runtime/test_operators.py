"""The table of operators: which families a lookup loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mnnpy.runtime.ops import OPERATORS
from mnnpy.runtime.ops.activation import Relu
from mnnpy.runtime.ops.elementwise import Add

LOADED = """
import sys
from mnnpy import Session
from mnnpy.runtime.ops import OPERATORS
OPERATORS["Conv"], OPERATORS.get("Relu")
print(*(name.rpartition(".")[2] for name in sys.modules if name.startswith("mnnpy.runtime.ops.")))
"""


def test_common_operators_load_no_rare_family() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert {"convolution", "activation"} <= set(loaded)
    assert not {"training", "sequence", "recurrent", "text", "attention"} & set(loaded)


def test_unknown_kinds() -> None:
    assert OPERATORS.get("Frobnicate") is None
    with pytest.raises(KeyError, match="Frobnicate"):
        OPERATORS["Frobnicate"]


def test_more_operators_go_before_the_families() -> None:
    more = OPERATORS | {"my.Add": Add, "Relu": Add}
    assert (more["my.Add"], more["Relu"], OPERATORS["Relu"]) == (Add, Add, Relu)
    assert "my.Add" not in OPERATORS
    assert set(more) == {*OPERATORS, "my.Add"}
    assert len(more) == len(OPERATORS) + 1
