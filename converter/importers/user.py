"""The importer of users' operators."""

from __future__ import annotations

from mnnpy.converter.importers.base import Importer, OnnxNode
from mnnpy.runtime.errors import UnsupportedOperatorError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops.user import UserOperator


def user_importer(op_type: type[UserOperator]) -> Importer:
    """Importer that hands on every attribute: numbers, texts and lists of these."""

    def importer(node: OnnxNode) -> Op:
        for name, value in node.attributes.items():
            if not isinstance(value, int | float | str | tuple):
                raise UnsupportedOperatorError(
                    f"{node}: attribute {name!r} is a {type(value).__name__}, which a user's "
                    "operator cannot have: make it an input"
                )
        return op_type(tuple(node.attributes.items()))

    return importer
