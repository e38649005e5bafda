"""Curves as a chart of text, in braille dots. plotext is not used: its release of today has a compiled part, which
cannot travel in one file that runs anywhere, and takes a third of a second to import."""

from __future__ import annotations

import math
from collections.abc import Sequence

from argus_ray.cli import draw, safe
from argus_ray.cli.output import terminal_size

Line = tuple[str, Sequence[int], Sequence[float]]
_ROWS, _LEAST_ROWS, _MOST_COLUMNS = 14, 4, 160
_COLOURS = (36, 33, 35, 32, 34, 31, 37, 90)
#: Bits of the dots of a braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def chart(title: str, lines: Sequence[Line], *, colour: bool) -> list[str]:
    """The lines of a chart. Each curve: its name, steps, values; those of one chart share their axes."""
    columns, rows = terminal_size()
    return drawn(title, lines, min(columns, _MOST_COLUMNS), max(_LEAST_ROWS, min(_ROWS, rows - 4)), colour=colour)


def drawn(title: str, lines: Sequence[Line], columns: int, rows: int, *, colour: bool) -> list[str]:
    values = [value for _, _, found in lines for value in found if math.isfinite(value)]
    steps = [step for _, found, _ in lines for step in found]
    if not values:
        return [title, "  no finite value"]
    low, high = min(values), max(values)
    labels = _labels(low, high, rows)
    margin = max(map(len, labels))
    wide = max(10, columns - margin - 3)
    cells, painted = _dots(lines, (min(steps), max(steps)), (low, high), wide, rows)
    shown = [title, *_legend(lines, colour=colour)]
    for row, label in enumerate(labels):
        text = "".join(
            _painted(chr(0x2800 + bits), painted[row][place], colour) if bits else " "
            for place, bits in enumerate(cells[row])
        )
        shown.append(f"{label.rjust(margin)} ┤{text}".rstrip())
    first, last = str(min(steps)), str(max(steps))
    shown.append(" " * margin + " └" + "─" * wide)
    shown.append(" " * (margin + 2) + first + last.rjust(max(1, wide - len(first))))
    return shown


def _labels(low: float, high: float, rows: int) -> list[str]:
    """Of each row: at the top, the bottom and between, no two alike. One, where the curve lies, if all is one value."""
    if high <= low:
        middle = (4 * rows - 1 - _scaled(low, low, high, 4 * rows)) // 4
        return [draw.number(low) if row == middle else "" for row in range(rows)]
    at = {row: high - (high - low) * row / max(1, rows - 1) for row in range(rows) if row % 3 == 0 or row == rows - 1}
    words = {row: draw.number(value) for row, value in at.items()}
    for digits in range(5, 18):
        if len(set(words.values())) == len(words):
            break
        words = {row: f"{value:.{digits}g}" for row, value in at.items()}
    return [words.get(row, "") for row in range(rows)]


def _legend(lines: Sequence[Line], *, colour: bool) -> list[str]:
    if len(lines) < 2:
        return []
    words = (_painted(f"── {safe.cell(name)}", number, colour) for number, (name, _, _) in enumerate(lines))
    return ["  " + "   ".join(words)]


def _painted(text: str, number: int, colour: bool) -> str:
    return f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{text}\x1b[0m" if colour else text


def _dots(
    lines: Sequence[Line], steps: tuple[int, int], values: tuple[float, float], wide: int, rows: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The dots of each cell, and the number of the curve that was drawn there last."""
    cells = [[0] * wide for _ in range(rows)]
    painted = [[0] * wide for _ in range(rows)]
    for number, (_, xs, ys) in enumerate(lines):
        before: tuple[int, int] | None = None
        for step, value in zip(xs, ys, strict=True):
            if not math.isfinite(value):
                before = None
                continue
            here = (
                _scaled(step, steps[0], steps[1], 2 * wide),
                4 * rows - 1 - _scaled(value, values[0], values[1], 4 * rows),
            )
            for x, y in _between(before or here, here):
                cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
                painted[y // 4][x // 2] = number
            before = here
    return cells, painted


def _scaled(value: float, low: float, high: float, count: int) -> int:
    """From 0 to count - 1; in the middle where all is one value. Halves, since the whole range may be no number."""
    if high <= low:
        return (count - 1) // 2
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(count - 1, max(0, round(share * (count - 1))))


def _between(first: tuple[int, int], last: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a straight line."""
    length = max(abs(last[0] - first[0]), abs(last[1] - first[1]))
    if not length:
        return [last]
    return [
        (
            round(first[0] + (last[0] - first[0]) * part / length),
            round(first[1] + (last[1] - first[1]) * part / length),
        )
        for part in range(length + 1)
    ]
