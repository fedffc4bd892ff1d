"""Importer tables: (domain, operator) -> rows by opset version."""

from __future__ import annotations

from mnnpy.converter.importers import (
    attention,
    control,
    core,
    elementwise,
    generation,
    indexing,
    microsoft,
    microsoft_attention,
    microsoft_quantized,
    ml,
    ml_models,
    ml_trees,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    sequence,
    signal,
    text,
    training,
    vision,
)
from mnnpy.converter.importers.base import Importer, Row

_FAMILIES = (
    attention,
    control,
    core,
    elementwise,
    generation,
    indexing,
    microsoft,
    microsoft_attention,
    microsoft_quantized,
    ml,
    ml_models,
    ml_trees,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    sequence,
    signal,
    text,
    training,
    vision,
)


def _table() -> dict[tuple[str, str], list[Row]]:
    rows: dict[tuple[str, str], list[Row]] = {}
    for family in _FAMILIES:
        for row in family.ROWS:
            rows.setdefault((row.domain, row.op_type), []).append(row)
    for group in rows.values():
        group.sort(key=lambda row: row.since)
    return rows


IMPORTERS: dict[tuple[str, str], list[Row]] = _table()


def find_importer(domain: str, op_type: str, version: int) -> Importer | None:
    """The importer for an operator at an opset version, or None where there is none."""
    found = None
    for row in IMPORTERS.get((domain, op_type), ()):
        if row.since <= version:
            found = row.importer
    return found
