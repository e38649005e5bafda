"""What a log's event stream says, as lines with their places. It knows where to go on after a broken connection.

Pure: `feed` takes events and yields what they mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from argus_ray.client.errors import BadAnswer
from argus_ray.client.models.results import Line, LogAttempt, LogEnd, LogGap

_ID = re.compile(r"(\d{1,6}):(\d{1,18})")
#: As the stream: LF, CR LF, and a lone CR. Not `splitlines`, which knows a dozen others.
_LINE_END = re.compile(r"\r\n|\n|\r")

LogItem = Line | LogAttempt | LogGap | LogEnd


class LogFeed:
    """One following of one log, through as many connections as it takes.

    `last_id`: where it begins, by the id of an event.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.has_ended = False
        self._attempt, self._offset = _place(last_id) or (0, 0)
        self._shown: int | None = None

    def feed(self, event: str, data: str, event_id: str) -> Iterator[LogItem]:
        """What the event says. Raises BadAnswer."""
        place = _place(event_id)
        if event == "message" and place is not None:
            yield from self._lines(data, *place)
        elif event == "attempt":
            yield from self._begin(_document(data), place)
        elif event == "gap":
            yield from self._gap(_document(data), place)
        elif event == "end":
            self.has_ended = True
            end = _document(data)
            yield LogEnd(str(end.get("task_state")), end.get("attempt"), end.get("outcome"))
        # An event of a newer server is passed over.

    def _begin(self, data: dict[str, Any], place: tuple[int, int] | None) -> Iterator[LogItem]:
        number = data.get("number")
        if not isinstance(number, int):
            raise BadAnswer("the log stream names no attempt")
        if place is not None:
            self._go_to(place)
        # Each connection begins by naming its attempt.
        if number != self._shown:
            self._shown = number
            yield LogAttempt(str(data.get("submission_id", "")), number)

    def _lines(self, data: str, attempt: int, end: int) -> Iterator[LogItem]:
        if (attempt, end) <= (self._attempt, self._offset):
            return  # seen
        start = self._offset if attempt == self._attempt else 0
        texts = data.split("\n")
        yield from lines_of(texts, attempt, start, end)
        self._go_to((attempt, end))

    def _gap(self, data: dict[str, Any], place: tuple[int, int] | None) -> Iterator[LogItem]:
        start, end = data.get("from"), data.get("to")
        if place is None or not isinstance(start, int) or not isinstance(end, int):
            raise BadAnswer("the log stream tells of a gap without its place")
        self._go_to(place)
        yield LogGap(place[0], start, end)

    def _go_to(self, place: tuple[int, int]) -> None:
        self._attempt, self._offset = place


def lines_of(texts: list[str], attempt: int, start: int, end: int) -> Iterator[Line]:
    """The lines of the bytes `start` to `end`. Their places are exact if all is UTF-8 with line ends of one byte."""
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    # Of the last one it is not told whether it has an end; the count of the bytes does.
    unended = sum(sizes) + len(texts) - 1 == end - start
    at = start
    for index, (text, size) in enumerate(zip(texts, sizes, strict=True)):
        yield Line(attempt, min(at, end), text, not (unended and index == len(texts) - 1))
        at += size + 1


def split_lines(text: str) -> list[str]:
    """The lines of a text; what follows the last line end is one if there is something."""
    texts = _LINE_END.split(text)
    if texts[-1] == "":
        texts.pop()
    return texts


def _place(event_id: str | None) -> tuple[int, int] | None:
    match = _ID.fullmatch(event_id or "")
    return match and (int(match[1]), int(match[2]))


def _document(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadAnswer("an event of the log stream is not understood")
    return found
