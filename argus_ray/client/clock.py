"""What time it is for the server. A laptop's clock may be wrong by hours; how long a task runs must not be."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable, Mapping

#: Seconds: the header `Date` has whole ones, and the answer was on its way.
_EQUAL_S = 2.0
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class ServerClock:
    """This machine's clock, put right by what the newest answer said."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead_s = 0.0

    def now(self) -> float:
        """Seconds since the epoch, as the server counts them; before an answer, as this machine does."""
        return self._clock() + self._ahead_s

    def note(self, headers: Mapping[str, str]) -> None:
        """Of an answer that has just come."""
        told = unix_of(headers.get("date", ""))
        if told is not None:
            # In the middle of that second.
            ahead = told + 0.5 - self._clock()
            self._ahead_s = ahead if abs(ahead) >= _EQUAL_S else 0.0


def unix_of(date: str) -> float | None:
    """Seconds since the epoch of a date as HTTP writes it; None for what is none."""
    match = _DATE.fullmatch(date)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[place]) for place in (1, 3, 4, 5, 6))
    return float(calendar.timegm((year, _MONTHS.index(match[2]) + 1, day, hour, minute, second)))
