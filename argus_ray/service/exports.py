"""Accepting an export of a checkpoint. The caller has authenticated; what may be seen is decided in `access`."""

from __future__ import annotations

from argus_ray.core.actions import Exported, ExportSource, ExportTask, Principal, ReadExport, Submitted
from argus_ray.core.errors import (
    FieldError,
    IdempotencyConflict,
    InvalidRequest,
    NothingToExport,
    QueueFull,
)
from argus_ray.core.exports import MAX_AT_A_TIME, WORKLOAD, Export, ExportSeen, has_part
from argus_ray.core.model import FilesAt, Task
from argus_ray.core.verl import merge
from argus_ray.service import access
from argus_ray.service.submission import Wanted, accept, check_limits, first_of_key
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import events
from argus_ray.store import exports as rows


def read(unit: UnitOfWork, principal: Principal, action: ReadExport) -> ExportSource | Exported:
    """Where the gateway looks for checkpoints; or the export that this Idempotency-Key has made."""
    task, first = _original_and_replay(unit, principal, action.call)
    if first is not None:
        return first
    _check_exports(unit, task.user_id)
    check_limits(unit, task.user_id, merge.GANG)
    return ExportSource(tuple(attempt.job_root for attempt in task.attempts), task.workload, task.gang.gpus)


def export(unit: UnitOfWork, principal: Principal, action: ExportTask) -> Exported:
    """A new task of the owner of the checkpoint. An admin does it in the owner's name, so the Idempotency-Key is one of
    the owner's."""
    task, first = _original_and_replay(unit, principal, action)
    if first is not None:
        return first
    left_by = next((attempt for attempt in task.attempts if attempt.job_root == action.job_root), None)
    if left_by is None or action.step < 1 or action.wanted_step not in (None, action.step):
        raise NothingToExport
    _check_exports(unit, task.user_id)
    made = Export(
        of=task.task_id,
        workload=task.workload,
        processes=task.gang.gpus,
        step=action.step,
        part=action.part,
        job_root=action.job_root,
        is_newest=action.wanted_step is None,
        trusts_code=merge.trusts_code(left_by.command, action.part),
    )
    wanted = Wanted(made.document(), WORKLOAD, merge.GANG, export=made)
    submitted = accept(unit, task.user_id, wanted, action.idempotency_key)
    by = "" if principal.user_id == task.user_id else " by an admin"
    message = f"step {made.step} is exported{by} as {submitted.task_id}"
    events.add_remark(unit.db, task.task_id, unit.now, "note", message)
    seen = ExportSeen(submitted.task_id, made.of, made.step, made.part, submitted.state, None)
    return Exported(submitted, seen)


def _original_and_replay(unit: UnitOfWork, principal: Principal, action: ExportTask) -> tuple[Task, Exported | None]:
    """The task whose checkpoint it is, and what this Idempotency-Key has made."""
    task = access.visible_task(unit, principal, action.task_id)
    first = first_of_key(unit, task.user_id, action.idempotency_key)
    if first is not None:
        made, seen = first.export, rows.seen(first)
        if made is None or seen is None or (made.of, made.part) != (task.task_id, action.part):
            raise IdempotencyConflict
        if action.wanted_step != (None if made.is_newest else made.step):
            raise IdempotencyConflict
        return task, Exported(Submitted.of(first, created=False), seen)
    if task.export is not None:
        raise NothingToExport("the task is an export itself: it has no checkpoints")
    if not has_part(task.workload, action.part):
        rule = f"a task of the workload {task.workload} has no {action.part.value}"
        raise InvalidRequest("the request breaks a rule", [FieldError("part", rule)])
    if task.files_at is not FilesAt.JOB_ROOT:
        where = "were deleted" if task.files_at is FilesAt.DELETED else "are in the trash"
        raise NothingToExport(f"the task's files {where}")
    return task, None


def _check_exports(unit: UnitOfWork, user_id: str) -> None:
    if rows.count_not_over(unit.db, user_id) >= MAX_AT_A_TIME:
        raise QueueFull(f"{MAX_AT_A_TIME} of your exports wait or run, which is the limit: wait for one, or cancel it")
