"""Importers of operators on strings."""

from __future__ import annotations

import re

from mnnpy.converter.importers.base import OnnxNode, Row, build, direct
from mnnpy.runtime.errors import InvalidModelError
from mnnpy.runtime.graph.op import Op
from mnnpy.runtime.ops import text


def _regex(node: OnnxNode) -> Op:
    pattern = node.attributes.get("pattern", "")
    try:
        text.compile_re2(pattern)
    except re.error as error:
        raise InvalidModelError(f"{node}: pattern {pattern!r} is not valid: {error}") from error
    return text.RegexFullMatch(pattern)


def _tf_idf(node: OnnxNode) -> Op:
    """One pool, whichever attribute holds it."""
    pools = [node.attributes.get(name) for name in ("pool_int64s", "pool_strings")]
    given = [tuple(pool) for pool in pools if pool]
    if len(given) != 1:
        raise InvalidModelError(f"{node}: has {len(given)} of pool_int64s and pool_strings")
    return build(text.TfIdfVectorizer, node, ("pool_int64s", "pool_strings"), pool=given[0])


ROWS: tuple[Row, ...] = (
    Row("StringNormalizer", 10, direct(text.StringNormalizer, "locale")),
    Row("StringConcat", 20, direct(text.StringConcat)),
    Row("StringSplit", 20, direct(text.StringSplit)),
    Row("RegexFullMatch", 20, _regex),
    Row("TfIdfVectorizer", 9, _tf_idf),
)
