"""The public Session: the runtime's, which also takes ONNX models and configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from mnnpy.models import load_model
from mnnpy.runtime import session as runtime_session
from mnnpy.runtime.errors import ConfigError
from mnnpy.runtime.graph.graph import Graph
from mnnpy.runtime.ops.user import OperatorLibrary
from mnnpy.runtime.session_config import load_session_config


class Session(runtime_session.Session):
    """Runs one model: a ``.mnnpy`` or ``.onnx`` path, the bytes of either, or a Graph.

    Takes what :class:`mnnpy.runtime.session.Session` takes; ONNX is converted in memory.
    """

    @classmethod
    def from_config(
        cls, config: str | Path, model: Graph | str | Path | bytes | None = None, **options: Any
    ) -> Self:
        """A session with options from a YAML file.

        Parameters
        ----------
        config : path of the file, or the name of one that is shipped (``"server"``).
        model : the model, unless the file names one.
        options : what to set otherwise than the file does.

        Raises
        ------
        ConfigError
            With everything that is wrong in the file.
        """
        loaded = load_session_config(config)
        chosen = loaded.model if model is None else model
        if chosen is None:
            raise ConfigError(f"{config}: names no model: give one, or set the key 'model'")
        return cls(chosen, **{**loaded.options(), **options})

    def _load(self, model: Graph | str | Path | bytes, operators: OperatorLibrary | None) -> Graph:
        return load_model(model, operators)
