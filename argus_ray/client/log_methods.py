"""The methods about logs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from argus_ray.client import task_calls
from argus_ray.client.caller import Caller
from argus_ray.client.calls import Answer, Call
from argus_ray.client.download import download_file
from argus_ray.client.errors import BadArgument, RangeNotSatisfiable
from argus_ray.client.follow import follow_log
from argus_ray.client.log_feed import LogItem, lines_of, split_lines
from argus_ray.client.models.results import (
    Line,
    LogGap,
    LogPart,
    LogText,
    Matches,
)

#: Bytes of one line, from which on it is told in pieces, as by the stream.
_LONGEST_HELD = 4 * 1024 * 1024


class LogMethods(Caller):
    """Part of Client."""

    def log(self, task_id: str, *, tail: int | None = None, attempt: int | str | None = None) -> LogText:
        """The last lines of a log as text, with its place and the task's state."""
        return self.send(task_calls.log(task_id, tail=tail, attempt=attempt))

    def logs(
        self,
        task_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        attempt: int | str | None = None,
        grep: str | re.Pattern[str] | None = None,
    ) -> Iterator[Line]:
        """Lines of a log: the last `tail` of them, and with `follow` what comes until the task, and what
        runs for it, has ended.

        `attempt`: a number, or without it the newest one (with `follow` it goes on with those that come); `all`: each
        of them, one after the other, with the last `tail` lines of each. `grep`: a regular expression that a line must
        have somewhere. Raises BadArgument for `all` with `follow`.
        """
        pattern = re.compile(grep) if isinstance(grep, str) else grep
        if follow and attempt == "all":
            raise BadArgument(
                "attempt='all' and follow exclude each other: follow goes on with each attempt that comes"
            )
        return self._lines(task_id, pattern, follow=follow, tail=tail, attempt=attempt)

    def _lines(
        self,
        task_id: str,
        pattern: re.Pattern[str] | None,
        *,
        follow: bool,
        tail: int | None,
        attempt: int | str | None,
    ) -> Iterator[Line]:
        items: Iterator[LogItem]
        if follow:
            items = self.log_events(task_id, tail=tail, attempt=attempt)
        elif attempt == "all":
            numbers = [each.number for each in self.send(task_calls.task(task_id)).attempts]
            items = itertools.chain.from_iterable(self._last_lines(task_id, tail, number) for number in numbers)
        else:
            items = iter(self._last_lines(task_id, tail, attempt))
        for item in items:
            if isinstance(item, Line) and (pattern is None or pattern.search(item.text)):
                yield item

    def _last_lines(self, task_id: str, tail: int | None, attempt: int | str | None) -> Iterator[Line]:
        found = self.log(task_id, tail=tail, attempt=attempt)
        if found.attempt is None or not found.text:
            return
        _, _, end = (found.position or "0:0").partition(":")
        start = max(0, int(end) - len(found.text.encode()))
        yield from lines_of(split_lines(found.text), found.attempt, start, int(end))

    def log_events(
        self,
        task_id: str,
        *,
        tail: int | None = None,
        attempt: int | str | None = None,
        after: str | None = None,
        follow_s: float | None = None,
    ) -> Generator[LogItem, None, None]:
        """A log as it grows, until LogEnd: LogAttempt before the lines of each attempt, LogGap for what cannot be had.

        `after`: a place to go on from, such as `log().position`. A connection that breaks is opened again where it was;
        no line is lost, and none comes twice.
        """

        def open_at(last_id: str | None) -> Call[Answer]:
            return task_calls.log_stream(task_id, tail=tail, attempt=attempt, after=last_id)

        patience_s = self._follow_s if follow_s is None else follow_s
        for item in follow_log(self._transport, open_at, last_id=after, patience_s=patience_s):
            if isinstance(item, LogGap):
                yield from self._left_out(task_id, item)
            else:
                yield item

    def _left_out(self, task_id: str, gap: LogGap) -> Iterator[LogItem]:
        """What a stream has left out since we were behind, as far as it is still there.

        Meanwhile nobody reads the stream, and the server may close it; it is opened again where it was.
        """
        at, rest = gap.start, b""
        while at < gap.end:
            try:
                part = self.log_range(task_id, at, gap.end, attempt=gap.attempt)
            except RangeNotSatisfiable:
                break
            if part.start > at:
                yield from _lines_in(rest, gap.attempt, at - len(rest))
                yield LogGap(gap.attempt, at, part.start)
                rest = b""
            at = part.end
            rest += part.content
            cut = _whole_in(rest)
            yield from _lines_in(rest[:cut], gap.attempt, at - len(rest))
            rest = rest[cut:]
        yield from _lines_in(rest, gap.attempt, at - len(rest))
        if at < gap.end:
            yield LogGap(gap.attempt, at, gap.end)

    def log_range(
        self, task_id: str, start: int, end: int | None = None, *, attempt: int | str | None = None
    ) -> LogPart:
        """The bytes `start` to `end` of a log, or the first 4 MiB of them. A negative `start`: so many from the end.

        Raises RangeNotSatisfiable, whose `size` is that of the log, if there is none of them.
        """
        return self.send(task_calls.log_range(task_id, start, end, attempt=attempt))

    def log_search(
        self,
        task_id: str,
        text: str,
        *,
        regex: bool | None = None,
        case: bool | None = None,
        direction: str | None = None,
        start: int | None = None,
        limit: int | None = None,
        attempt: int | str | None = None,
    ) -> Matches:
        """Where a text, or a regular expression, stands in a log; it goes on from `next` unless that was all."""
        call = task_calls.log_search(
            *(task_id, text),
            regex=regex,
            case=case,
            direction=direction,
            start=start,
            limit=limit,
            attempt=attempt,
        )
        return self.send(call)

    def download_log(
        self,
        task_id: str,
        to: str | Path,
        *,
        attempt: int | str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """The whole log of an attempt to the file `to`; as `download`."""
        call = task_calls.download_log(task_id, attempt=attempt)
        return download_file(self._transport, call, Path(to), on_progress=on_progress, patience_s=self._follow_s)


def _whole_in(content: bytes) -> int:
    """How many of the bytes can be told without the next ones: whole lines, or, of a line that does not end, what there
    is. A CR that comes last may be half of a CR LF."""
    ends = max(content.rfind(b"\n"), content.rfind(b"\r", 0, len(content) - 1)) + 1
    if ends or len(content) < _LONGEST_HELD:
        return ends
    cut = len(content) - 1
    while cut > len(content) - 4 and content[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _lines_in(content: bytes, attempt: int, start: int) -> Iterator[Line]:
    texts = split_lines(content.decode("utf-8", "replace"))
    return lines_of(texts, attempt, start, start + len(content))
