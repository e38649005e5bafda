"""Moments in a query: a time, a day, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from argus_ray.core.errors import FieldError, InvalidRequest

RULE = "must be a time such as 2026-11-26T12:00:00Z, a day such as 2026-11-26, or how long ago, such as 90m, 2h or 7d"
_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def parse_moment(field: str, text: str, now: float) -> float:
    """Seconds since the Unix epoch; a day is its first moment in UTC. Raises InvalidRequest that names `field`."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    # In a query that was not escaped the plus of a zone arrives as a space.
    parts = _TIME.fullmatch(re.sub(r" (?=[0-9]{2}:[0-9]{2}$)", "+", text))
    try:
        if parts is None:
            raise ValueError(text)
        day, clock, zone = parts[1], parts[2] or "00:00:00", (parts[3] or "Z").upper()
        # Python 3.10 reads three or six digits of a second and no Z.
        whole, _, fraction = clock.partition(".")
        read = datetime.fromisoformat(f"{day}T{whole}.{fraction[:6]:0<6}{'+00:00' if zone == 'Z' else zone}")
        return read.astimezone(timezone.utc).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{field} is not a moment", [FieldError(field, RULE)]) from None
