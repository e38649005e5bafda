"""Decides what housekeeping may touch, and stores what it has done. A job root is marked LEAVING in the transaction
that checks that nobody needs it; files move only afterwards."""

from __future__ import annotations

from argus_ray.core import ids
from argus_ray.core.lifecycle import Deleted, FilesMeasured, Trashed
from argus_ray.core.model import FilesAt, Task
from argus_ray.core.retention import DAY_S, Chore, Chores, look_again_at
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import disk, events


def chores(unit: UnitOfWork, chore: Chore, certain: float, begun: float | None = None) -> Chores:
    """What a pass that began then (None: now) may do of this kind. Marks the tasks whose files leave. `certain`: Unix
    time without what may be a mistake of the clock, since what has left does not come back."""
    policy, now = unit.ports.settings.retention.policy(), unit.now
    begun = now if begun is None else begun
    at, per_user = begun, disk.per_user(unit.db)
    spared: set[str] = set()
    if chore in (Chore.TRASH, Chore.ENDED):
        spared = set(filter(None, map(_task_of, disk.roots_in_use(unit.db))))
    if chore is Chore.TRASH and policy.trash_after_days:
        disk.claim_for_trash(unit.db, certain - policy.trash_after_days * DAY_S, spared, per_user)
    if chore is Chore.ENDED:
        disk.bring_forward(unit.db, policy.keep_checkpoints, begun)
    if chore is Chore.DELETE:
        if not policy.delete_after_days:
            return Chores(begun, per_user)
        at = min(begun, certain) - policy.delete_after_days * DAY_S
    tasks = disk.due(unit.db, chore, at, per_user)
    prunable = frozenset(task.task_id for task in tasks if task.is_over and task.task_id not in spared)
    return Chores(begun, per_user, tasks, prunable if chore is Chore.ENDED else frozenset())


def files_measured(unit: UnitOfWork, task: Task, change: FilesMeasured) -> bool:
    policy = unit.ports.settings.retention.policy()
    disk.look_again(unit.db, task.task_id, look_again_at(task, change.seen, unit.now, policy))
    own = {attempt.submission_id for attempt in task.attempts}
    disk.measured(unit.db, [(name, size) for name, size in change.sizes if name in own])
    if change.message is not None:
        events.add_remark(unit.db, task.task_id, unit.now, "note", change.message)
    return True


def trashed(unit: UnitOfWork, task: Task, change: Trashed) -> bool:
    return _moved(unit, task, FilesAt.LEAVING, FilesAt.TRASH, change.message)


def deleted(unit: UnitOfWork, task: Task, change: Deleted) -> bool:
    if not _moved(unit, task, FilesAt.TRASH, FilesAt.DELETED, change.message):
        return False
    disk.measured(unit.db, [(attempt.submission_id, 0) for attempt in task.attempts])
    return True


def _moved(unit: UnitOfWork, task: Task, old: FilesAt, new: FilesAt, message: str | None) -> bool:
    if not disk.moved(unit.db, task.task_id, old, new, unit.now):
        return False
    if message is not None:
        events.add_remark(unit.db, task.task_id, unit.now, "note", message)
    return True


def _task_of(job_root: object) -> str | None:
    """None for what is no job root: it is nobody's, and stops the work on no other."""
    try:
        return ids.task_of(str(job_root))
    except ValueError:
        return None
