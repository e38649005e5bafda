"""What is stored as Unix time and waited for, when the wall clock is set: at a start, at a step, and at each write.

A time that lies further ahead than it can have been meant comes from a clock that was wrong.
"""

from __future__ import annotations

import math

from argus_ray.core.decision import OWN_TROUBLES
from argus_ray.core.lifecycle import Hold
from argus_ray.core.model import Task
from argus_ray.core.quotas import CLOCK_STANDS
from argus_ray.core.reasons import Reason
from argus_ray.core.retention import LIVE_AGAIN_S
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import clocks, orders


def bring_back(unit: UnitOfWork, *, future: float | None = None) -> int:
    """How many rows were brought back from too far ahead. `future`: from when on what was written shows that the
    clock was wrong; now, if nobody has seen the step."""
    scheduling = unit.ports.settings.scheduling
    return clocks.bring_back(
        unit.db,
        unit.now,
        future=unit.now if future is None else future,
        short={code.value for code in OWN_TROUBLES},
        short_s=scheduling.longest_hold_s,
        long_s=scheduling.retry_policy().longest_wait_s,
        live_by=unit.now + LIVE_AGAIN_S,
    )


def follow(unit: UnitOfWork, step_s: int) -> int:
    """The clock was set by so many seconds. How many rows have followed it."""
    return clocks.move(unit.db, step_s) + orders.follow_clock(unit.db, step_s) + bring_back(unit, future=math.inf)


def bounded(unit: UnitOfWork, task: Task, change: Hold) -> tuple[float | None, float | None]:
    """The own time and the overtaking clock of a task that is held. The scheduler may have read them, or its own clock,
    just before a step."""
    reason = change.reason or task.reason
    is_own = isinstance(reason, Reason) and reason.code in OWN_TROUBLES
    scheduling = unit.ports.settings.scheduling
    longest_s = scheduling.longest_hold_s if is_own else scheduling.retry_policy().longest_wait_s
    not_before = None if change.not_before is None else min(change.not_before, unit.now + longest_s)
    since = change.overtaken_since
    if task.overtaken_since is not None:
        has_stood = isinstance(task.reason, Reason) and task.reason.code in CLOCK_STANDS
        if not has_stood or since is None or since < task.overtaken_since:
            return not_before, task.overtaken_since  # once it runs, it runs from there
    return not_before, None if since is None else min(since, unit.now)
