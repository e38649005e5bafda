"""Looking at tasks and canceling them. The caller has authenticated; what may be seen is decided in
`access`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from argus_ray.core.actions import (
    CancelTask,
    CountQueue,
    ExplainTask,
    Explanation,
    FindAttempt,
    GetTask,
    Principal,
    QueueCounts,
    QueueEntry,
    QueueShare,
    Role,
    ShowQueue,
    TaskEvents,
    TaskView,
)
from argus_ray.core.errors import FieldError, InvalidRequest, LogNotFound
from argus_ray.core.model import Attempt, Event, Task
from argus_ray.core.states import Cause, TaskState, check_move
from argus_ray.service import access, forecasts, shares
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import attempts, events, exports, orders, queue, tasks

_MAX_EVENTS = 1000
#: SQLite's integers.
MAX_INTEGER = 2**63 - 1


def view(unit: UnitOfWork, task: Task) -> TaskView:
    position = queue.position(unit.db, task)
    [told] = forecasts.with_estimates(unit, [_with_next_look(unit, task)])
    return TaskView(told, position, exports.of_task(unit.db, task.task_id), exports.seen(task))


def get(unit: UnitOfWork, principal: Principal, action: GetTask) -> TaskView:
    return view(unit, access.visible_task(unit, principal, action.task_id))


def for_list(unit: UnitOfWork, task: Task) -> Task:
    """With the time of its next look, and without what no list shows, which is most of what it would move through Ray:
    the spec, and the commands of all attempts but the one that is active, whose steps they tell."""
    task = _with_next_look(unit, task)
    last = task.attempts[-1] if task.attempts and task.state.is_active else None
    attempts = (
        replace(each, env=(), command=each.command if each is last else (), failure=None) for each in task.attempts
    )
    return replace(task, spec_yaml="", warnings=(), attempts=tuple(attempts))


def show_queue(unit: UnitOfWork, principal: Principal, action: ShowQueue) -> tuple[QueueEntry, ...]:
    """ADMIN owns no tasks, so its own queue is empty."""
    if action.everyone:
        access.require_admin(principal)
    elif principal.role is Role.ADMIN:
        return ()
    owner = None if action.everyone else principal.user_id
    entries = queue.entries(unit.db, owner)
    told = forecasts.with_estimates(unit, [task for task, _ in entries])
    return tuple(QueueEntry(for_list(unit, task), position) for task, (_, position) in zip(told, entries, strict=True))


def count_queue(unit: UnitOfWork, principal: Principal, action: CountQueue) -> QueueCounts:
    """No names: how much there is beside one's own is no secret, and whose it is, is one."""
    shares = queue.shares(unit.db)
    own = [share for user_id, share in shares.items() if user_id == principal.user_id]
    others = [share for user_id, share in shares.items() if user_id != principal.user_id]
    return QueueCounts(_sum(own), _sum(others))


def _sum(shares: Sequence[QueueShare]) -> QueueShare:
    return QueueShare(
        sum(share.waiting for share in shares),
        sum(share.active for share in shares),
        sum(share.gpus for share in shares),
    )


def explain(unit: UnitOfWork, principal: Principal, action: ExplainTask) -> Explanation:
    """`own_ahead` are tasks of the owner of the task, also when an admin asks."""
    task = access.visible_task(unit, principal, action.task_id)
    settings = unit.ports.settings
    position = queue.position(unit.db, task)
    ahead = () if position is None else queue.own_ahead(unit.db, task)
    [told] = forecasts.with_estimates(unit, [_with_next_look(unit, task)])
    return Explanation(
        task=told,
        position=position,
        own_ahead=ahead,
        others_ahead=0 if position is None else position - 1 - len(ahead),
        active_tasks=attempts.count_live(unit.db),
        now=unit.now,
        maintenance=orders.read(unit.db).maintenance,
        gpus_held=shares.gpus_held(unit, task.user_id),
        gpus_quota=settings.limits.quotas().limit_of(task.user_id),
        recent_use_s=shares.recent_use(unit, task.user_id) if settings.scheduling.fair_share else None,
    )


def cancel(unit: UnitOfWork, principal: Principal, action: CancelTask) -> TaskView:
    """Final at once, in every state. A live attempt waits in STOPPING until the scheduler has seen its job
    over."""
    task = access.visible_task(unit, principal, action.task_id)
    if task.state.is_final:
        return view(unit, task)
    cancel_one(unit, principal, task)
    return view(unit, access.visible_task(unit, principal, action.task_id))


def cancel_one(unit: UnitOfWork, principal: Principal, task: Task) -> None:
    """`task`: one that has not ended, as this transaction sees it."""
    check_move(task.state, TaskState.CANCELED, Cause.CANCELED_BY_USER)
    by = "its user" if principal.user_id == task.user_id else "an admin"
    attempt = task.live_attempt
    message = f"canceled by {by}"
    if attempt is not None:
        message += f"; attempt {attempt.label} is being stopped"
        attempts.stop(unit.db, attempt.submission_id)
    new = replace(
        task,
        state=TaskState.CANCELED,
        reason=f"canceled by {by}",
        not_before=None,
        overtaken_since=None,
        ended_at=unit.now,
        updated_at=unit.now,
    )
    submission_id = None if attempt is None else attempt.submission_id
    tasks.move(unit.db, task, new, Cause.CANCELED_BY_USER, message, submission_id)


def list_events(unit: UnitOfWork, principal: Principal, action: TaskEvents) -> tuple[Event, ...]:
    task = access.visible_task(unit, principal, action.task_id)
    check_range("after", action.after, 0, MAX_INTEGER)
    check_range("limit", action.limit, 1, _MAX_EVENTS)
    return events.of_task(unit.db, task.task_id, action.after, action.limit)


def find_attempt(unit: UnitOfWork, principal: Principal, action: FindAttempt) -> tuple[TaskState, Attempt | None]:
    task = access.visible_task(unit, principal, action.task_id)
    if action.attempt is None:
        return task.state, task.attempts[-1] if task.attempts else None
    for attempt in task.attempts:
        if attempt.number == action.attempt:
            return task.state, attempt
    raise LogNotFound(f"the task has no attempt {action.attempt}")


def _with_next_look(unit: UnitOfWork, task: Task) -> Task:
    """A task that was looked at and waits is looked at again at its own time, if it has one, and else with all others:
    at the end of each interval since it was told why it waits, at the latest."""
    if task.state is not TaskState.PENDING_RESOURCES:
        return task
    if task.not_before is not None and task.not_before > unit.now:
        return replace(task, next_retry_at=task.not_before)
    every_s = unit.ports.settings.scheduling.retry_interval_s
    told_at = min(task.updated_at, unit.now)  # later than now by a clock that was set back since
    intervals = math.floor((unit.now - told_at) / every_s) + 1
    return replace(task, next_retry_at=told_at + intervals * every_s)


def check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{field} is not valid", [FieldError(field, f"must be from {low} to {high}")])
