"""What was used, by user, workload and day, for admins. The wire, then the route."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.usage import ShowUsage, Usage, UsagePlace, UsageRow, UsageTable, day_of, merged, milliseconds
from argus_ray.gateway.caller import Caller, TheCaller, TheGateway
from argus_ray.gateway.http.params import StrictQuery, decode_cursor, decode_words, encode_cursor, encode_words
from argus_ray.gateway.http.times import time_or_day_of

router = APIRouter(prefix="/api/v2/usage", tags=["cluster (admin)"])

_GROUPS = ("user", "workload", "day")
_EPOCH = date(1970, 1, 1)
#: Of the calendar.
_LAST_DAY = (date.max - _EPOCH).days


class UsageQuery(StrictQuery):
    by: list[str] = Field(
        default=[], max_length=16, description="`user`, `workload`, `day`; repeated, or by commas; none: all in one row"
    )
    since: str | None = Field(default=None, max_length=40, description="From the day (UTC) of this moment on")
    until: str | None = Field(default=None, max_length=40, description="To the day of this moment; without it: today")
    limit: int = Field(default=1000, ge=1, le=5000)
    cursor: str | None = Field(default=None, max_length=128, description="From the page before")

    def groups(self) -> tuple[str, ...]:
        names = {name.strip() for value in self.by for name in value.split(",") if name.strip()}
        if not names <= set(_GROUPS):
            raise InvalidRequest("There is no such column.", [FieldError("by", f"must be of {', '.join(_GROUPS)}")])
        return tuple(name for name in _GROUPS if name in names)


class UsageSums(BaseModel):
    gpu_seconds: float = Field(description="GPUs times the time since the driver's start; what runs now is in it")
    tasks: int = Field(description="Accepted then")
    succeeded: int = Field(description="Ended then, as the next two")
    failed: int
    canceled: int

    @classmethod
    def of_usage(cls, usage: Usage) -> UsageSums:
        return cls(**_sums(usage))


class UsageRowOut(UsageSums):
    user_id: str | None = Field(default=None, description="With `by=user`")
    workload: str | None = Field(default=None, description="With `by=workload`")
    day: str | None = Field(default=None, description="With `by=day`: a date (UTC)")

    @classmethod
    def of(cls, row: UsageRow) -> UsageRowOut:
        day = None if row.day is None else _date(row.day)
        return cls(user_id=row.user_id, workload=row.workload, day=day, **_sums(row.usage))


class UsageOut(BaseModel):
    rows: list[UsageRowOut]
    since: str = Field(description="The first day")
    until: str = Field(description="The last day; it counts as well")
    next_cursor: str | None


@router.get("")
async def show_usage(caller: TheCaller, gateway: TheGateway, query: Annotated[UsageQuery, Query()]) -> UsageOut:
    """GPU time and tasks by user, workload and day. It does not change with retention."""
    now = gateway.clock()
    first, last = (_day(name, value, now) for name, value in (("since", query.since), ("until", query.until)))
    asked = ShowUsage(query.groups(), first, last, query.limit)
    rows, part, cursor = await (_by_user if "user" in asked.by else _of_all)(caller, asked, query)
    return UsageOut(
        rows=[UsageRowOut.of(row) for row in rows],
        since=_date(part.first_day),
        until=_date(part.last_day),
        next_cursor=cursor,
    )


async def _by_user(
    caller: Caller, asked: ShowUsage, query: UsageQuery
) -> tuple[list[UsageRow], UsageTable, str | None]:
    """A page goes on where the one before has ended, so it costs what it shows."""
    rows: list[UsageRow] = []
    asked = replace(asked, after=_decoded(query.cursor))
    while True:
        part = await caller.do(replace(asked, limit=query.limit - len(rows)))
        rows += part.rows
        if part.next_place is None or len(rows) == query.limit:
            return rows, part, None if part.next_place is None else _encoded(part.next_place)
        asked = _next(asked, part)


async def _of_all(caller: Caller, asked: ShowUsage, query: UsageQuery) -> tuple[list[UsageRow], UsageTable, str | None]:
    """Sums over all users, some at a time, with calls of others between."""
    skip = decode_cursor("u", query.cursor) or 0
    parts = [await caller.do(asked)]
    while parts[-1].next_place is not None:
        asked = _next(asked, parts[-1])
        parts.append(await caller.do(asked))
    rows = merged(parts)
    end = skip + query.limit
    return rows[skip:end], parts[0], encode_cursor("u", end) if end < len(rows) else None


def _next(asked: ShowUsage, part: UsageTable) -> ShowUsage:
    """Of the same days, also beyond midnight."""
    return replace(asked, first_day=part.first_day, last_day=part.last_day, after=part.next_place)


def _encoded(place: UsagePlace) -> str:
    day = "" if place.day is None else str(place.day)
    return encode_words("v", place.user_id, place.workload or "", day, "w" if place.is_whole else "")


def _decoded(cursor: str | None) -> UsagePlace | None:
    words = decode_words("v", cursor, 4)
    if words is None:
        return None
    user_id, workload, day, whole = words
    return UsagePlace(user_id, workload or None, int(day) if day.isdecimal() else None, whole == "w")


def _day(field: str, text: str | None, now: float) -> int | None:
    at = time_or_day_of(field, text, now)
    return None if at is None else day_of(milliseconds(at))


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=min(max(day, 0), _LAST_DAY))).isoformat()


def _sums(usage: Usage) -> dict[str, float]:
    return {
        "gpu_seconds": usage.gpu_ms / 1000,
        "tasks": usage.tasks,
        "succeeded": usage.succeeded,
        "failed": usage.failed,
        "canceled": usage.canceled,
    }
