"""Decides what housekeeping may touch, and stores what it has done. A job root is marked LEAVING in the transaction
that checks that nobody needs it; files move only afterwards."""

from __future__ import annotations

from argus_ray.core import ids
from argus_ray.core.lifecycle import Deleted, FilesMeasured, Trashed
from argus_ray.core.model import FilesAt, Task
from argus_ray.core.retention import DAY_S, Chores
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import disk, events

#: Tasks of one pass.
_MAX_LOOKS = 200
_MAX_REMOVALS = 100
#: Seconds until a task is looked at again: one that is alive, and one that has ended.
LIVE_AGAIN_S = 3600.0
ENDED_AGAIN_S = DAY_S
#: A task that ended without an attempt has no files, ever.
_NEVER_S = 1000 * 365 * DAY_S
#: No next look that is to come lies further ahead.
AS_GOOD_AS_NEVER_S = _NEVER_S / 2


def chores(unit: UnitOfWork, certain: float) -> Chores:
    """What housekeeping may do now. Marks the tasks whose files leave. `certain`: Unix time without what may be a
    mistake of the clock, since what has left does not come back."""
    policy, now = unit.ports.settings.retention.policy(), unit.now
    spared = set(filter(None, map(_task_of, disk.roots_in_use(unit.db))))
    if policy.trash_after_days:
        disk.claim_for_trash(unit.db, certain - policy.trash_after_days * DAY_S, spared, _MAX_REMOVALS)
    look = disk.to_look_at(unit.db, now, _MAX_LOOKS)
    delete: tuple[Task, ...] = ()
    if policy.delete_after_days:
        delete = disk.to_delete(unit.db, now, certain - policy.delete_after_days * DAY_S, _MAX_REMOVALS)
    return Chores(
        look=look,
        prunable=frozenset(task.task_id for task in look if _is_over(task) and task.task_id not in spared),
        trash=disk.leaving(unit.db, now, _MAX_REMOVALS),
        delete=delete,
    )


def files_measured(unit: UnitOfWork, task: Task, change: FilesMeasured) -> bool:
    again = LIVE_AGAIN_S
    if _is_over(task):
        again = ENDED_AGAIN_S if task.attempts else _NEVER_S
    disk.look_again(unit.db, task.task_id, unit.now + again)
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


def _is_over(task: Task) -> bool:
    return task.state.is_final and task.live_attempt is None
