"""Plain-text tables, the same in a terminal, a log and a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_WIDEST = 48
_HEAD = 10


def text_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()
) -> str:
    """Aligned columns under a rule; long cells are cut where names differ least, near their start.

    Parameters
    ----------
    numbers : headings of the columns to align on the right.
    """
    cells = [list(headings), *([_cut(cell) for cell in row[:-1]] + [row[-1]] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    right = [heading in numbers for heading in headings]
    lines = [_line(row, widths, right) for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if flush else cell.ljust(width)
        for cell, width, flush in zip(row, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cut(cell: str) -> str:
    if len(cell) <= _WIDEST:
        return cell
    return f"{cell[:_HEAD]}..{cell[_HEAD + 2 - _WIDEST :]}"
