"""Searching a log, a bounded part of it a call, in either direction. Blocking.

The log is looked at in windows of a fixed grid. A window has the matches that begin in it, and is read with what
stands around it, up to the ends of its first and last line. So the same matches are found in whatever direction, from
whatever place, and in however many calls. In a line that is longer than what is read of it, a match must be shorter
than `_AROUND`.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from argus_ray.core.search_patterns import Pattern
from argus_ray.disk.log_sequence import Gone, Log, on_log

#: Bytes.
_GRID = 128 * 1024
_AROUND = 64 * 1024
#: Of the text that is shown of a match.
_SHOWN = 2048
#: How far back from a window its first line may begin.
_LINE_BACK = 2 * 1024 * 1024
_UTF8_REST = range(0x80, 0xC0)


@dataclass(frozen=True)
class Wish:
    pattern: Pattern
    limit: int
    #: Forward: matches that begin there or later, of all without it. Backward: those that begin before it.
    start: int | None = None
    is_backward: bool = False


@dataclass(frozen=True)
class Match:
    """Places in bytes."""

    offset: int
    length: int
    #: None: further back than anybody looks.
    line_start: int | None
    #: What is shown of the line: before the match, the match, and behind it.
    shown: tuple[str, str, str]
    #: That is not the whole line.
    is_cut: bool


@dataclass(frozen=True)
class Found:
    """In the order of the search."""

    matches: tuple[Match, ...]
    #: Where to go on; None: all has been looked at.
    next: int | None
    #: Of the log, in bytes.
    size: int
    #: The first one, if there is any: where it begins, and where the log goes on.
    gap: tuple[int, int] | None


@dataclass
class Budget:
    """Of one call: bytes and seconds, of which the last window may take more."""

    max_bytes: int = 64 * 1024 * 1024
    max_s: float = 1.0
    #: Of one window: an expression that takes longer is refused.
    window_s: float = 3.0
    monotonic: Callable[[], float] = time.monotonic
    spent: int = 0
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun = self.monotonic()

    def is_spent(self) -> bool:
        return self.spent > 0 and (self.spent >= self.max_bytes or self.monotonic() - self._begun >= self.max_s)


def search(root: str, path: str, wish: Wish, budget: Budget) -> Found:
    """Raises FileNotFoundError, NotReadable, TooSlow; OSError if the disk does not answer."""
    return on_log(root, path, lambda log: (_backward if wish.is_backward else _forward)(log, wish, budget))


def _forward(log: Log, wish: Wish, budget: Budget) -> Found:
    found: list[Match] = []
    start = min(wish.start or 0, log.size)
    at = log.readable(start)
    while at < log.size:
        if budget.is_spent():
            return _found(log, found, at)
        try:
            window = _Window(log, at, budget)
        except Gone:
            if not budget.spent:
                raise
            return _found(log, found, at)
        missing = wish.limit - len(found)
        found += itertools.islice((each for each in window.matches(wish.pattern) if each.offset >= start), missing)
        if len(found) == wish.limit:
            return _found(log, found, found[-1].offset + 1)
        at = log.readable(window.end)
    return _found(log, found, None)


def _backward(log: Log, wish: Wish, budget: Budget) -> Found:
    found: list[Match] = []
    below = log.size if wish.start is None else min(wish.start, log.size)
    while (end := log.end_before(below)) > 0:
        if budget.is_spent():
            return _found(log, found, below)
        try:
            window = _Window(log, end - 1, budget)
        except Gone:
            if not budget.spent:
                raise
            return _found(log, found, below)
        before = (each for each in window.matches(wish.pattern) if each.offset < end)
        found += reversed(deque(before, maxlen=wish.limit - len(found)))
        if len(found) == wish.limit:
            return _found(log, found, found[-1].offset)
        below = window.start
    return _found(log, found, None)


def _found(log: Log, matches: list[Match], next_: int | None) -> Found:
    return Found(tuple(matches), next_, log.size, log.gap_at(log.run_end(0)))


class _Window:
    """That of the grid which holds the byte at `at`, as far as no gap cuts it."""

    def __init__(self, log: Log, at: int, budget: Budget) -> None:
        self._log, self._budget = log, budget
        cell = at // _GRID * _GRID
        self._run_start, self._run_end = log.run_start(at + 1), log.run_end(at)
        self.start, self.end = max(cell, self._run_start), min(cell + _GRID, self._run_end)
        # A byte more at both ends: whether a line or a word begins or ends there.
        self._base = max(self._run_start, self.start - _AROUND - 1)
        self._data = log.read(self._base, min(self._run_end, self.end + _AROUND + 1) - self._base)
        budget.spent += self.end - self.start
        self._lines = self._data.replace(b"\r", b"\n")
        self._first_line: tuple[int | None] | None = None

    def matches(self, pattern: Pattern) -> Iterator[Match]:
        """Those that begin in this window, in order."""
        base, lines = self._base, self._lines
        own = self.start - base
        begin = lines.rfind(b"\n", 0, own) + 1 or (1 if base > self._run_start else 0)
        end = lines.find(b"\n", self.end - base - 1)
        if end < 0:
            end = len(lines) - (base + len(lines) < self._run_end)
        for first, behind in pattern.spans(
            lines, begin, end, at_most_s=self._budget.window_s, monotonic=self._budget.monotonic
        ):
            if base + first >= self.end:
                return
            if first >= own:
                yield self._match(first, behind)

    def _match(self, first: int, behind: int) -> Match:
        lines = self._lines
        line = lines.rfind(b"\n", 0, first) + 1
        line_end = lines.find(b"\n", behind)
        line_end = len(lines) if line_end < 0 else line_end
        # The match, and as much on both sides.
        start = max(line, first - max(0, _SHOWN - (behind - first)) // 2)
        stop = min(line_end, start + _SHOWN)
        start = max(line, stop - _SHOWN)
        # Not from within a character, nor to within one.
        start += sum(1 for _ in itertools.takewhile(_UTF8_REST.__contains__, self._data[start : min(start + 3, first)]))
        if stop < line_end:
            head = self._data[max(first, stop - 3) : stop + 1]
            stop -= sum(1 for _ in itertools.takewhile(_UTF8_REST.__contains__, reversed(head)))
        shown = (self._data[start:first], self._data[first : min(behind, stop)], self._data[min(behind, stop) : stop])
        is_first = line == 0 and self._base > self._run_start
        line_start = self._start_of_first_line() if is_first else self._base + line
        before, matched, after = (part.decode("utf-8", "replace") for part in shown)
        is_cut = start > line or stop < line_end or is_first or self._is_open(line_end)
        return Match(self._base + first, behind - first, line_start, (before, matched, after), is_cut)

    def _is_open(self, line_end: int) -> bool:
        """Whether the line goes on behind what was read."""
        return line_end == len(self._lines) and self._base + line_end < self._run_end

    def _start_of_first_line(self) -> int | None:
        """Of the line that the read bytes begin within; it is looked for once."""
        if self._first_line is None:
            self._first_line = (_line_start(self._log, self._run_start, self._base, self._budget),)
        return self._first_line[0]


def _line_start(log: Log, run_start: int, position: int, budget: Budget) -> int | None:
    """Of the line that the byte at `position` stands in; None if that is far back."""
    floor = max(run_start, position - _LINE_BACK)
    while position > floor:
        start = max(floor, position - _AROUND)
        data = log.read(start, position - start)
        budget.spent += len(data)
        if (end := max(data.rfind(b"\n"), data.rfind(b"\r"))) >= 0:
            return start + end + 1
        position = start
    return run_start if floor == run_start else None
