"""What was used: GPU time by user, workload and day (UTC). Pure.

GPU time is whole milliseconds, so that a sum is the same whatever the order of its parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from argus_ray.core.actions import Action, Principal

DAY_MS = 86_400_000
#: Of one run apart; what is older counts for the first of them. A clock that was years behind makes no more.
MAX_DAYS = 400


def milliseconds(at: float) -> int:
    return round(at * 1000)


def day_of(at_ms: int) -> int:
    """Days since the epoch."""
    return at_ms // DAY_MS


def by_day(gpus: int, from_ms: int, until_ms: int) -> dict[int, int]:
    """GPU milliseconds of a run between these times, by day. Empty where the end is not after the beginning."""
    if gpus <= 0 or until_ms <= from_ms:
        return {}
    last = day_of(until_ms - 1)
    first = max(day_of(from_ms), last - MAX_DAYS + 1)
    parts = {}
    for day in range(first, last + 1):
        start = from_ms if day == first else day * DAY_MS
        parts[day] = gpus * (min(until_ms, (day + 1) * DAY_MS) - start)
    return parts


@dataclass(frozen=True)
class Usage:
    """Of some days. What runs now is in `gpu_ms`."""

    gpu_ms: int = 0
    #: Accepted then.
    tasks: int = 0
    #: Ended then.
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.gpu_ms + other.gpu_ms,
            self.tasks + other.tasks,
            self.succeeded + other.succeeded,
            self.failed + other.failed,
            self.canceled + other.canceled,
        )


@dataclass(frozen=True)
class UsageRow:
    """None: of all together."""

    user_id: str | None
    workload: str | None
    day: int | None
    usage: Usage


@dataclass(frozen=True)
class UsagePlace:
    """After this row of a table by user; with `is_whole` after all of this user."""

    user_id: str
    workload: str | None = None
    day: int | None = None
    is_whole: bool = False

    def is_before(self, row: UsageRow) -> bool:
        if row.user_id != self.user_id:
            return (row.user_id or "") > self.user_id
        return not self.is_whole and order_of(row) > (self.workload or "", self.day or 0)


def order_of(row: UsageRow) -> tuple[str, int]:
    """Among the rows of one user, and in a table without users."""
    return row.workload or "", row.day or 0


@dataclass(frozen=True)
class UsageTable:
    """A part of a table, of so many users as can be looked at in a moment."""

    rows: tuple[UsageRow, ...]
    #: The first and the last day that count.
    first_day: int
    last_day: int
    #: From where the next part goes on; None: this was the last one.
    next_place: UsagePlace | None = None


def merged(parts: Iterable[UsageTable]) -> list[UsageRow]:
    """Of a table without users: each part has sums of some users."""
    sums: dict[tuple[str | None, int | None], Usage] = {}
    for part in parts:
        for row in part.rows:
            key = row.workload, row.day
            sums[key] = sums.get(key, Usage()) + row.usage
    rows = [UsageRow(None, workload, day, usage) for (workload, day), usage in sums.items()]
    return sorted(rows, key=order_of)


@dataclass(frozen=True)
class ShowUsage(Action[UsageTable]):
    """Of everybody; admin only. `by`: of `user`, `workload` and `day`. Days are inclusive, since the epoch; None: the
    last 30, and today. The answer is a part: by user at most `limit` rows; else `merged` makes a table of the parts."""

    by: tuple[str, ...] = ()
    first_day: int | None = None
    last_day: int | None = None
    limit: int = 1000
    after: UsagePlace | None = None


@dataclass(frozen=True)
class OwnLimits:
    waiting_tasks: int
    waiting_tasks_limit: int
    gpus_held: int
    #: None: any number.
    gpus_quota: int | None


@dataclass(frozen=True)
class Me:
    """Who the bearer of a token is, and what is theirs; None of an admin's that is no user."""

    principal: Principal
    lately: Usage | None = None
    total: Usage | None = None
    limits: OwnLimits | None = None


@dataclass(frozen=True)
class ShowMe(Action[Me]):
    """As WhoAmI, with use and limits."""
