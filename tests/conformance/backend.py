"""mnnpy as a backend of ONNX's own test suite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

import mnnpy
from mnnpy.runtime.errors import UnsupportedOperatorError


class NotImplementedCaseError(Exception):
    """The model uses an operator that mnnpy does not have: a skip, never a pass."""


class Prepared(BackendRep):  # type: ignore[misc]
    """A session that takes and gives what the suite expects: values in order."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Any, **_: Any) -> Sequence[Any]:
        names = [info.name for info in self._session.inputs]
        feeds = dict(zip(names, inputs, strict=False))
        results = self._session.run(feeds)
        return [_as_expected(results[info.name]) for info in self._session.outputs]


@cache
def suite_backend(name: str) -> type[Backend]:
    """The suite's Backend class that runs everything on one of mnnpy's backends."""

    class MnnpyBackend(Backend):  # type: ignore[misc]
        @classmethod
        def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **_: Any) -> Prepared:
            try:
                return Prepared(mnnpy.Session(model.SerializeToString(), backend=name))
            except UnsupportedOperatorError as error:
                raise NotImplementedCaseError(str(error)) from error

        @classmethod
        def supports_device(cls, device: str) -> bool:
            return device == "CPU"

    return MnnpyBackend


def _as_expected(value: Any) -> Any:
    """The suite compares scalars with NumPy scalars' arrays."""
    return value if isinstance(value, list) or value is None else np.asarray(value)
