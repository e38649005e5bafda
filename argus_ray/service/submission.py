"""Accepting a task, new or made again from one that has ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from argus_ray.core import ids
from argus_ray.core.actions import (
    FindSubmission,
    ForeseeSubmission,
    Foresight,
    Principal,
    ReadResubmission,
    Resubmittable,
    ResubmitTask,
    SubmitTask,
    Submitted,
)
from argus_ray.core.errors import (
    FieldError,
    IdempotencyConflict,
    InvalidRequest,
    InvalidSpec,
    NothingToResume,
    QueueFull,
    TaskNotEnded,
    Unavailable,
)
from argus_ray.core.exports import Export
from argus_ray.core.model import FilesAt, Gang, Task
from argus_ray.core.states import TaskState
from argus_ray.service import access, shares
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import events, orders, queue, tasks

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
#: Two random bytes a second, user and workload: even with 50,000 ids of 65,536 taken, this many tries miss
#: once in 10^16.
_ID_TRIES = 136
#: Each is looked into when an attempt resumes; a chain of resubmissions has no end.
_MAX_RESUME_ROOTS = 200


def submit(unit: UnitOfWork, principal: Principal, action: SubmitTask) -> Submitted:
    """The new task, or the first one of this Idempotency-Key."""
    user_id, first = _submitter_and_replay(unit, principal, action)
    if first is not None:
        return Submitted.of(first, created=False)
    wanted = Wanted(action.spec_yaml, action.workload, action.gang, action.presets, action.settings)
    return accept(unit, user_id, wanted, action.idempotency_key, action.warnings)


def find(unit: UnitOfWork, principal: Principal, action: FindSubmission) -> Submitted | None:
    """The first task of this Idempotency-Key."""
    _, first = _submitter_and_replay(unit, principal, action)
    return None if first is None else Submitted.of(first, created=False)


def resubmit(unit: UnitOfWork, principal: Principal, action: ResubmitTask) -> Submitted:
    """As `submit`, with the owner and the TaskSpec of a task that has ended. An admin does it in the owner's name, so
    the Idempotency-Key is one of the owner's."""
    old, first = _original_and_replay(unit, principal, action)
    if first is not None:
        return Submitted.of(first, created=False)
    origin = _Origin(old, _roots_to_resume_from(unit, old) if action.resume else None)
    # What goes on goes on with what it began with, also if the configuration has no such preset any more.
    settings = old.settings if action.resume else action.settings
    wanted = Wanted(old.spec_yaml, old.workload, old.gang, old.presets, settings)
    submitted = accept(unit, old.user_id, wanted, action.idempotency_key, action.warnings, origin)
    by = "" if principal.user_id == old.user_id else " by an admin"
    events.add_remark(unit.db, old.task_id, unit.now, "note", f"resubmitted{by} as {submitted.task_id}")
    return submitted


def read_again(unit: UnitOfWork, principal: Principal, action: ReadResubmission) -> Resubmittable | None:
    """What the call would accept again; None for a replay. Raises what the call would raise now."""
    old, first = _original_and_replay(unit, principal, action.call)
    if first is not None:
        return None
    check_limits(unit, old.user_id, old.gang)
    return Resubmittable(old.user_id, old.spec_yaml, old.presets)


def foresee(unit: UnitOfWork, principal: Principal, action: ForeseeSubmission) -> Foresight:
    """What a submission would meet. Nothing is stored."""
    user_id = _submitter(principal)
    refusal = None
    try:
        check_limits(unit, user_id, action.gang)
    except (InvalidSpec, QueueFull) as error:
        refusal = error
    own = queue.count_waiting_of(unit.db, user_id)
    return Foresight(
        user_id=user_id,
        refusal=refusal,
        own_ahead=own,
        others_ahead=queue.count_waiting(unit.db) - own,
        gpus_held=shares.gpus_held(unit, user_id),
        gpus_quota=unit.ports.settings.limits.quotas().limit_of(user_id),
        maintenance=orders.read(unit.db).maintenance,
    )


def _submitter_and_replay(
    unit: UnitOfWork, principal: Principal, action: SubmitTask | FindSubmission
) -> tuple[str, Task | None]:
    """Who submits, and the task that has this Idempotency-Key.

    The key decides before the body and the limits do: who repeats a call that was accepted gets its answer,
    even if the queue is full by now or a path has become invalid.
    """
    user_id = _submitter(principal)
    first = first_of_key(unit, user_id, action.idempotency_key)
    if first is not None:
        # By what was asked for. What the presets came to then is no part of it: the configuration may be another one.
        is_same = (first.spec_yaml, first.presets) == (action.spec_yaml, action.presets)
        if not is_same or first.resubmitted_from is not None or first.export is not None:
            raise IdempotencyConflict
    return user_id, first


def _submitter(principal: Principal) -> str:
    if principal.user_id is None:
        raise InvalidRequest("the admin token owns no tasks: submit with the token of a user")
    return principal.user_id


def _original_and_replay(unit: UnitOfWork, principal: Principal, action: ResubmitTask) -> tuple[Task, Task | None]:
    """The task that is to be made again, and the one that has this Idempotency-Key."""
    old = access.visible_task(unit, principal, action.task_id)
    first = first_of_key(unit, old.user_id, action.idempotency_key)
    if first is not None:
        if first.resubmitted_from != old.task_id or (first.resume_roots is not None) != action.resume:
            raise IdempotencyConflict
        return old, first
    if old.export is not None:
        again = f"POST /api/v2/tasks/{old.export.of}:export"
        raise InvalidRequest(f"the task is an export, and is not resubmitted: ask for another one with {again}")
    if not old.state.is_final:
        raise TaskNotEnded(f"the task is {old.state.value}: cancel it, or wait for its end")
    if action.resume and old.state is TaskState.SUCCEEDED:
        raise NothingToResume(
            "the task has SUCCEEDED, and with the same TaskSpec nothing is left to train: resubmit it without resume "
            "to run it anew, or submit a TaskSpec with more steps"
        )
    return old, None


def _roots_to_resume_from(unit: UnitOfWork, old: Task) -> tuple[str, ...]:
    """Those of the tasks that it was to resume from too: it may have ended before it saved anything itself. Without
    those that leave for the trash."""
    earlier = {root: ids.task_of(root) for root in old.resume_roots or ()}
    found = tasks.by_ids(unit.db, sorted(set(earlier.values())))
    roots = [root for root, name in earlier.items() if name in found and found[name].files_at is FilesAt.JOB_ROOT]
    if old.files_at is FilesAt.JOB_ROOT:
        roots += [attempt.job_root for attempt in old.attempts]
    return tuple(roots[-_MAX_RESUME_ROOTS:])


def first_of_key(unit: UnitOfWork, user_id: str, key: str | None) -> Task | None:
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            "the Idempotency-Key is not valid",
            [FieldError("Idempotency-Key", "1 to 255 printable ASCII characters")],
        )
    return tasks.by_key(unit.db, user_id, key)


@dataclass(frozen=True)
class _Origin:
    """Of a task that is made again from another one."""

    task: Task
    resume_roots: tuple[str, ...] | None

    def words(self, settings: str | None) -> str:
        said = f"; resubmitted from {self.task.task_id}"
        if self.resume_roots is not None:
            said += ", to resume from its newest checkpoint"
            return said if settings is None else f"{said}, with its settings"
        if settings is None:
            return said
        same = settings == self.task.settings
        return f"{said}, with {'its settings' if same else 'the settings of today, not its own'}"


@dataclass(frozen=True)
class Wanted:
    """What a task is made of."""

    spec_yaml: str
    workload: str
    gang: Gang
    presets: tuple[str, ...] = ()
    settings: str | None = None
    export: Export | None = None

    def words(self) -> str:
        if self.export is not None:
            return f"{self.workload} of {self.export.words()}"
        return f"{self.workload} on {self.gang.nnodes} x {self.gang.gpus_per_node} GPUs"


def accept(
    unit: UnitOfWork,
    user_id: str,
    wanted: Wanted,
    idempotency_key: str | None,
    warnings: tuple[FieldError, ...] = (),
    origin: _Origin | None = None,
) -> Submitted:
    """A new task at the end of the queue. Raises QueueFull, InvalidSpec and Unavailable."""
    gang = wanted.gang
    check_limits(unit, user_id, gang)
    message = f"accepted: {wanted.words()}"
    if wanted.presets:
        message += f", with {', '.join(wanted.presets)}"
    if origin is not None:
        message += origin.words(wanted.settings)
    for _ in range(_ID_TRIES):
        task_id = ids.task_id(user_id, wanted.workload, unit.now, unit.ports.entropy(2))
        seq = tasks.add(
            unit.db,
            task_id=task_id,
            user_id=user_id,
            workload=wanted.workload,
            gang=gang,
            spec_yaml=wanted.spec_yaml,
            idempotency_key=idempotency_key,
            now=unit.now,
            message=message,
            resubmitted_from=origin.task.task_id if origin else None,
            resume_roots=origin.resume_roots if origin else None,
            warnings=warnings,
            presets=wanted.presets,
            settings=wanted.settings,
            export=wanted.export,
        )
        if seq is not None:
            _take_room(unit, user_id)
            for warning in warnings:
                events.add_remark(unit.db, task_id, unit.now, "note", f"{warning.field}: {warning.rule}")
            from_task = origin.task.task_id if origin else None
            return Submitted(
                task_id, user_id, TaskState.QUEUED, warnings, from_task, created=True, presets=wanted.presets
            )
    raise Unavailable("too many tasks of this user in one second: no free task id was found; try again")


def check_limits(unit: UnitOfWork, user_id: str, gang: Gang | None) -> None:
    limits = unit.ports.settings.limits
    quota = limits.quotas().limit_of(user_id)
    if quota is not None and gang is not None and gang.gpus > quota:
        # It would wait until the quota is another one: better to say so while somebody looks.
        wanted = f"{gang.nnodes} x {gang.gpus_per_node} GPUs are {gang.gpus}"
        rule = f"{wanted}, and {quota} is the most that you may hold at a time"
        raise InvalidSpec("the task is larger than your quota of GPUs", [FieldError("nnodes, n_gpus_per_node", rule)])
    most = limits.waiting_tasks_of(user_id)
    if not _has_room(unit, user_id, most, lambda: queue.count_waiting_of(unit.db, user_id)):
        raise QueueFull(f"you have {most} waiting tasks, which is the limit")
    if not _has_room(unit, None, limits.waiting_tasks, lambda: queue.count_waiting(unit.db)):
        raise QueueFull(f"{limits.waiting_tasks} tasks wait, which is the limit of this cluster")


def _has_room(unit: UnitOfWork, whose: str | None, most: int, count: Callable[[], int]) -> bool:
    """Counted once a transaction, since to count all takes longer with each user; and again before it is denied."""
    if unit.room.get(whose, 0) <= 0:
        unit.room[whose] = most - count()
    return unit.room[whose] > 0


def _take_room(unit: UnitOfWork, user_id: str) -> None:
    """Also of a submission that is undone after all: then there is more room than is known."""
    for whose in (user_id, None):
        unit.room[whose] -= 1
