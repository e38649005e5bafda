"""Times and durations: as people type them, and as they read them."""

from __future__ import annotations

import re
from datetime import datetime, timezone

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+")
_AGO = re.compile(r"[0-9]{1,9}[smhdw]")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")


def seconds(text: str) -> float:
    """`90s`, `2h`, `1h30m`, `7d` or plain seconds. Raises ValueError."""
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: write 90s, 30m, 2h, 1h30m or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def point(text: str) -> str:
    """A time for the API: RFC 3339, a day as its local midnight, or how long ago. The server counts back from its own
    clock: that of a laptop may be wrong. Raises ValueError."""
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            return text
        if _DURATION.fullmatch(text):
            return f"{round(seconds(text))}s"
        # Without a time zone, as a day is, it is meant in that of this machine.
        return rfc3339(datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp())
    except (ValueError, OverflowError, OSError):
        words = "write 2h or 7d for so long ago, 2026-01-31, or 2026-01-31T12:00:00Z"
        raise ValueError(f"{text!r} is no time: {words}") from None


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix(stamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Python 3.10 reads no `Z`."""
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", stamp)).timestamp()


def span(length_s: float) -> str:
    """A duration in at most two units: `45s`, `12m`, `1h50m`, `3d4h`. The second unit is left out above ten of the
    first, and where it is zero."""
    left = max(0, round(length_s))
    if left < 60:
        return f"{left}s"
    for unit, below, low in (("d", 86_400, "h"), ("h", 3600, "m"), ("m", 60, "s")):
        if left >= below:
            first, rest = divmod(left, below)
            second = rest // _UNITS[low]
            return f"{first}{unit}" + (f"{second}{low}" if second and first < 10 else "")
    raise AssertionError(left)  # unreachable: 60 s are a minute


def short_span(length_s: float) -> str:
    """In one unit, for a column of ages: `3h`."""
    left = max(0, int(length_s))
    for unit in "dhm":
        if left >= _UNITS[unit] * (1 if unit != "d" else 2):
            return f"{left // _UNITS[unit]}{unit}"
    return f"{left}s"


def local(stamp: str, *, utc: bool) -> str:
    """An RFC 3339 time for people: to the second, in the time zone of this machine or in UTC."""
    at = datetime.fromtimestamp(unix(stamp), timezone.utc)
    if utc:
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(at: float, *, utc: bool) -> str:
    """The time of day, in the time zone of this machine or in UTC."""
    moment = datetime.fromtimestamp(at, timezone.utc)
    return moment.strftime("%H:%M:%SZ") if utc else moment.astimezone().strftime("%H:%M:%S")
