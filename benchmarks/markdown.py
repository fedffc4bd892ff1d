"""Tables and numbers as the pages show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table that reads well unrendered too.

    Parameters
    ----------
    names : columns at the left that hold names; the others hold numbers, aligned on the right.
    """
    cells = [list(headings), *map(list, rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if column < names else "-" * (w - 1) + ":" for column, w in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _formatted(text: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else text(value)


number = _formatted(lambda value: f"{value:.2f}" if value < 100 else f"{value:.0f}")
ratio = _formatted(lambda value: f"{value:.2f}x")
error = _formatted(lambda value: f"{value:.1e}")
