"""Times of a query: RFC 3339, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from argus_ray.core.errors import FieldError, InvalidRequest

RULE = "must be RFC 3339 (2026-01-31T12:00:00Z), or how long ago: 30s, 90m, 2h, 7d, 4w"
#: For the document. It tells the form; a 31st of June fits it, and is refused.
PATTERN = r"^(\d{1,9}[smhdw]|\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2}))$"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def time_of(field: str, text: str | None, now: float) -> float | None:
    """Unix seconds; None for None. Raises InvalidRequest that names the field."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    found = _TIME.fullmatch(text)
    if found is None:
        raise _broken(field)
    zone = "+00:00" if found[4] in "Zz" else found[4]
    try:
        # Python 3.10 takes neither a Z nor a fraction of any length.
        at = datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise _broken(field) from None
    return at.timestamp() + float(f"0{found[3] or '.0'}")


def time_or_day_of(field: str, text: str | None, now: float) -> float | None:
    """The same; a day such as 2026-01-31 is its first moment in UTC."""
    return time_of(field, f"{text}T00:00:00Z" if text and _DAY.fullmatch(text) else text, now)


def _broken(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is no time.", [FieldError(field, RULE)])
