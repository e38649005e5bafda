"""What was used, by user, workload and day, for admins. The wire, then the route."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.usage import ShowUsage, Usage, UsageRow, UsageTable, day_of, milliseconds
from argus_ray.gateway.caller import TheCaller, TheGateway
from argus_ray.gateway.http.params import StrictQuery, decode_cursor, encode_cursor
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
    cursor: str | None = Field(default=None, max_length=64, description="From the page before")

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
    skip = decode_cursor("u", query.cursor) or 0
    first, last = (_day(name, value, now) for name, value in (("since", query.since), ("until", query.until)))
    found: UsageTable = await caller.do(ShowUsage(query.groups(), first, last, query.limit, skip))
    end = skip + len(found.rows)
    return UsageOut(
        rows=[UsageRowOut.of(row) for row in found.rows],
        since=_date(found.first_day),
        until=_date(found.last_day),
        next_cursor=encode_cursor("u", end) if end < found.count else None,
    )


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
