"""Small pictures in text: a bar, a line of blocks, a frame that is drawn over."""

from __future__ import annotations

import contextlib
import math
import re
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, TextIO

from argus_ray.cli import safe
from argus_ray.cli.output import terminal_size

_BLOCKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SGR = re.compile(r"\x1b\[[0-9;]*m")


def sparkline(values: Sequence[float | None], columns: int = 20) -> str:
    """One block for each part of the values: the mean of its part, between the least and the most that there is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or columns < 1:
        return ""
    if len(known) > columns:
        parts = [known[len(known) * n // columns : len(known) * (n + 1) // columns] for n in range(columns)]
        known = [math.fsum(part) / len(part) for part in parts]
    low, high = min(known), max(known)
    if not math.isfinite(high - low) or high == low:
        return _BLOCKS[3] * len(known)
    return "".join(_BLOCKS[min(7, int((value - low) / (high - low) * 8))] for value in known)


def bar(done: float, total: float, columns: int = 24) -> str:
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    eighths = int(share * columns * 8)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[part] if part else "")).ljust(columns, "░")


def number(value: float | None) -> str:
    """Short, with the digits that tell something: `0.42`, `1.2e-06`, `12345.7`."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    return f"{value:.2e}"


def size(count: int | None) -> str:
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def cut_painted(text: str, columns: int) -> str:
    """`safe.cut` for text that has colours of ours."""
    if safe.width(_SGR.sub("", text)) <= columns:
        return text
    kept, left, place = [], columns - 1, 0
    while place < len(text):
        if found := _SGR.match(text, place):
            kept.append(found[0])
            place = found.end()
            continue
        left -= safe.width(text[place])
        if left < 0:
            break
        kept.append(text[place])
        place += 1
    return "".join(kept) + "…" + ("\x1b[0m" if any(each.startswith("\x1b") for each in kept) else "")


class Frame:
    """Lines at the bottom of a terminal that are drawn over in place. What stood above stays, and so does the last
    frame. It is cut to the terminal, also when that has become narrower since."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: list[str] = []
        self._lines: list[str] = []
        self._words = ""
        self._is_drawing = False

    def draw(self, lines: Sequence[str]) -> None:
        self._words = ""
        self._drawn(lines)

    def draw_with(self, words: str) -> None:
        """The lines that are there, and below them these words, until other lines are drawn."""
        self._words = words
        self._drawn(self._lines)

    def _drawn(self, lines: Sequence[str]) -> None:
        self._is_drawing = True
        try:
            self._draw(lines)
        finally:
            self._is_drawing = False

    def _draw(self, lines: Sequence[str]) -> None:
        self._lines = list(lines)
        columns, rows = terminal_size()
        shown = [cut_painted(each, columns) for each in self._lines]
        if len(shown) >= rows:
            shown = [*shown[: max(0, rows - 2)], f"({len(self._lines) - max(0, rows - 2)} more lines)"]
        if self._words:
            # In the place of the last line of all, if there is no room for one more.
            shown = [*shown[: max(0, rows - 2)], cut_painted(self._words, columns)]
        # One write, so that no half of a frame is seen.
        self._stream.write(self._erased(columns) + "".join(each + "\n" for each in shown))
        self._stream.flush()
        self._shown = shown

    def above(self, text: str) -> None:
        """A line that stays, over the frame."""
        columns, _ = terminal_size()
        self._stream.write(self._erased(columns) + text + "\n" + "".join(each + "\n" for each in self._shown))
        self._stream.flush()

    def _erased(self, columns: int) -> str:
        """What removes the frame. A terminal that has become narrower has broken its lines."""
        if not self._shown:
            return ""
        widths = (safe.width(_SGR.sub("", each)) for each in self._shown)
        height = sum(max(1, math.ceil(wide / max(1, columns))) for wide in widths)
        return f"\x1b[{height}A\r\x1b[J"

    def _resized(self, _: int, __: FrameType | None) -> None:
        # Within a write no other may begin: a stream refuses that. The next frame has the new size.
        if not self._is_drawing:
            self._drawn(self._lines)


@contextlib.contextmanager
def frame(stream: TextIO) -> Iterator[Frame]:
    """A frame without a cursor, which is drawn again when the terminal changes its size."""
    made = Frame(stream)
    resize = getattr(signal, "SIGWINCH", None)
    before: Any = None
    stream.write("\x1b[?25l")
    try:
        if resize is not None:
            before = signal.signal(resize, made._resized)
        yield made
    finally:
        if resize is not None:
            signal.signal(resize, before)
        stream.write("\x1b[?25h")
        stream.flush()
