"""What was used, by user, workload and day: counted when an attempt ends; what is alive is added when somebody asks."""

from __future__ import annotations

from argus_ray.core.actions import Principal
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.model import Attempt, Task
from argus_ray.core.usage import (
    Me,
    OwnLimits,
    ShowUsage,
    Usage,
    UsagePlace,
    UsageRow,
    UsageTable,
    by_day,
    day_of,
    milliseconds,
    order_of,
)
from argus_ray.service import shares
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import queue, usage

#: Days before today that count where nobody says which.
LATELY = 30
MAX_SPAN = 400
#: Of one part, which holds the writer meanwhile: some hundredths of a second.
_MAX_READ = 5_000
_MAX_USERS = 1_000
_MAX_ROWS = 5_000
_GROUPS = ("user", "workload", "day")


def count(unit: UnitOfWork, task: Task, attempt: Attempt) -> None:
    """`attempt` has just ended, and is as it was before."""
    if attempt.used_since is not None:
        parts = by_day(task.gang.gpus, milliseconds(attempt.used_since), milliseconds(unit.now))
        usage.add(unit.db, task.user_id, task.workload, parts)


def show(unit: UnitOfWork, action: ShowUsage) -> UsageTable:
    today = day_of(milliseconds(unit.now))
    last = today if action.last_day is None else action.last_day
    first = last - LATELY if action.first_day is None else action.first_day
    if not 0 <= last - first < MAX_SPAN:
        raise _invalid("since", f"must be at most {MAX_SPAN} days before until, and not after it")
    if not set(action.by) <= set(_GROUPS):
        raise _invalid("by", f"must be of {', '.join(_GROUPS)}")
    if not 1 <= action.limit <= _MAX_ROWS:
        raise _invalid("limit", f"must be from 1 to {_MAX_ROWS}")
    by_user, place = "user" in action.by, action.after
    found: dict[tuple[str | None, int | None], Usage] = {}
    rows: list[UsageRow] = []
    read = 0
    alive = _alive(unit, action.by, first, last)
    users = usage.users_from(unit.db, "" if place is None else place.user_id, _MAX_USERS + 1)
    for number, user_id in enumerate(users):
        if number == _MAX_USERS or read >= _MAX_READ:
            next_place = UsagePlace(users[number - 1], is_whole=True)
            break
        if place is not None and place.is_whole and user_id == place.user_id:
            continue
        sums, count = usage.part_of_user(unit.db, user_id, action.by, first, last)
        read += count
        for key, now in alive.get(user_id, {}).items():
            sums[key] = sums.get(key, Usage()) + now
        if not by_user:
            for key, more in sums.items():
                found[key] = found.get(key, Usage()) + more
            continue
        mine = sorted((UsageRow(user_id, *key, sums[key]) for key in sums), key=order_of)
        rows += (row for row in mine if place is None or place.is_before(row))
        if len(rows) > action.limit:
            end = rows[action.limit - 1]
            next_place = UsagePlace(end.user_id or "", end.workload, end.day)
            break
    else:
        next_place = None
    if not by_user:
        rows = [UsageRow(None, *key, sums) for key, sums in found.items()]
        return UsageTable(tuple(sorted(rows, key=order_of)), first, last, next_place)
    return UsageTable(tuple(rows[: action.limit]), first, last, next_place)


def show_me(unit: UnitOfWork, principal: Principal) -> Me:
    user_id = principal.user_id
    if user_id is None:
        return Me(principal)
    today = day_of(milliseconds(unit.now))
    lately = usage.of_user(unit.db, user_id, today - LATELY, today)
    total = usage.total_of(unit.db, user_id)
    for run in usage.live(unit.db, user_id):
        parts = by_day(run.gpus, milliseconds(run.counts_from), milliseconds(unit.now))
        lately += Usage(sum(gpu_ms for day, gpu_ms in parts.items() if day >= today - LATELY))
        total += Usage(sum(parts.values()))
    limits = unit.ports.settings.limits
    return Me(
        principal,
        lately,
        total,
        OwnLimits(
            waiting_tasks=queue.count_waiting_of(unit.db, user_id),
            waiting_tasks_limit=limits.waiting_tasks_of(user_id),
            gpus_held=shares.gpus_held(unit, user_id),
            gpus_quota=limits.quotas().limit_of(user_id),
        ),
    )


def _alive(
    unit: UnitOfWork, by: tuple[str, ...], first: int, last: int
) -> dict[str, dict[tuple[str | None, int | None], Usage]]:
    """Of what runs now: user -> (workload, day) -> use."""
    found: dict[str, dict[tuple[str | None, int | None], Usage]] = {}
    for run in usage.live(unit.db):
        mine = found.setdefault(run.user_id, {})
        for day, gpu_ms in by_day(run.gpus, milliseconds(run.counts_from), milliseconds(unit.now)).items():
            if first <= day <= last:
                key = (run.workload if "workload" in by else None, day if "day" in by else None)
                mine[key] = mine.get(key, Usage()) + Usage(gpu_ms)
    return found


def _invalid(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not valid", [FieldError(field, rule)])
