"""What users hold and have used: counted when an attempt ends, checked when one is made."""

from __future__ import annotations

from argus_ray.core.model import Attempt, Task
from argus_ray.core.shares import use_of_run
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import gpu_use


def count_use(unit: UnitOfWork, task: Task, attempt: Attempt) -> None:
    """`attempt` has just ended, and is as it was before. Counted whether or not fair share is on, so that it can be
    switched on at any time."""
    half_life_s = unit.ports.settings.scheduling.fair_share_half_life_s
    used = use_of_run(task.gang.gpus, attempt.used_since, unit.now, half_life_s)
    if used > 0:
        before = gpu_use.of_user(unit.db, task.user_id)
        gpu_use.put(unit.db, task.user_id, before.plus(used, unit.now, half_life_s))


def is_above_quota(unit: UnitOfWork, task: Task) -> bool:
    """With this task its user would hold too much. The scheduler has asked the same; this is for one that knew less
    than it believed. What needs no GPU is never too much, also for one whose quota was made smaller."""
    if not task.gang.gpus:
        return False
    limit = unit.ports.settings.limits.quotas().limit_of(task.user_id)
    return limit is not None and gpus_held(unit, task.user_id) + task.gang.gpus > limit


def gpus_held(unit: UnitOfWork, user_id: str) -> int:
    return sum(gpus for gpus, _ in gpu_use.held_by(unit.db, user_id))


def recent_use(unit: UnitOfWork, user_id: str) -> float:
    """GPU-seconds, decayed; with what runs now."""
    half_life_s = unit.ports.settings.scheduling.fair_share_half_life_s
    ended = gpu_use.of_user(unit.db, user_id).decayed(unit.now, half_life_s)
    held = gpu_use.held_by(unit.db, user_id)
    return ended + sum(use_of_run(gpus, since, unit.now, half_life_s) for gpus, since in held)
