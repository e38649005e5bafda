"""A table as plain lines. rich would take 70 ms to import, and draws no better a table of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from argus_ray.cli import safe

#: A column that gives way to the width of the terminal keeps so many columns.
_LEAST = 5


@dataclass(frozen=True)
class Column:
    name: str
    right: bool = False
    #: It is cut first where the terminal is too narrow.
    gives_way: bool = False


def lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    headers: bool = True,
    limit: int | None = None,
    paint: Callable[[str, str, str], str] = lambda name, text, padded: padded,
) -> list[str]:
    """`limit`: columns of the terminal; None: as wide as it gets. `paint`: of the column's name, the cell, and the cell
    padded. Two blanks part columns, and no cell holds two."""
    cells = [[safe.cell(text) or "-" for text in row] for row in rows]
    if headers:
        cells.insert(0, [column.name for column in columns])
    if not cells:
        return []
    widths = [max(safe.width(row[place]) for row in cells) for place in range(len(columns))]
    if limit is not None:
        _fit(columns, widths, limit)
    found = []
    for number, row in enumerate(cells):
        parts = []
        for column, text, wide in zip(columns, row, widths, strict=True):
            shown = safe.cut(text, wide)
            blank = " " * (wide - safe.width(shown))
            padded = blank + shown if column.right else shown + blank
            parts.append(padded if headers and number == 0 else paint(column.name, text, padded))
        found.append("  ".join(parts).rstrip())
    return found


def room(columns: Sequence[Column], rows: Sequence[Sequence[str]], limit: int) -> int:
    """Columns that are left beside these, for one more."""
    cells = [[column.name for column in columns], *([safe.cell(text) or "-" for text in row] for row in rows)]
    return limit - sum(max(safe.width(row[place]) for row in cells) + 2 for place in range(len(columns)))


def _fit(columns: Sequence[Column], widths: list[int], limit: int) -> None:
    # The last one first: it is the least.
    for place, column in reversed(list(enumerate(columns))):
        over = sum(widths) + 2 * (len(widths) - 1) - limit
        if over > 0 and column.gives_way:
            least = min(widths[place], max(_LEAST, safe.width(column.name)))
            widths[place] = max(least, widths[place] - over)
