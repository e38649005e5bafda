"""What the scheduler found out, applied: each change only if the task and the attempt are still where it saw
them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from typing_extensions import assert_never

from argus_ray.core import ids, paths
from argus_ray.core.attempts import Aftermath, RetryPolicy, after_end, failure_of
from argus_ray.core.lifecycle import (
    Admit,
    Advance,
    Change,
    Deleted,
    End,
    FilesMeasured,
    Halt,
    Hold,
    Note,
    Reject,
    Stall,
    Trashed,
)
from argus_ray.core.model import Attempt, Task
from argus_ray.core.reasons import Code, because, is_news, words
from argus_ray.core.states import AttemptState, Cause, Outcome, TaskState, check_move
from argus_ray.core.text import clean
from argus_ray.service import clocks, forecasts, shares, upkeep, usage
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import attempts, events, orders, tasks

_OUTCOME_WORDS = {
    Outcome.SUCCEEDED: "it has succeeded",
    Outcome.APPLICATION: "the program failed",
    Outcome.INFRASTRUCTURE: "it was lost to infrastructure",
    Outcome.INSUFFICIENT_RESOURCES: "verl found too few resources",
    Outcome.CANCELED: "it was canceled",
}
#: Of an error that is told as an event.
_MAX_ERROR_CHARS = 1000


class Stale(Exception):
    """A change was half written when the rows turned out to be elsewhere; the caller rolls it back."""


class TaskCache:
    """The tasks that a batch of changes is about: read at once, and again after a change."""

    def __init__(self, db: sqlite3.Connection, changes: Iterable[Change]) -> None:
        self._db = db
        wanted = {name for change in changes if (name := _task_id(change)) is not None}
        self._found: dict[str, Task | None] = dict.fromkeys(wanted)
        self._found.update(tasks.by_ids(db, sorted(wanted)))

    def task_of(self, change: Change) -> Task | None:
        name = _task_id(change)
        if name is None:
            return None
        if name not in self._found:
            self._found[name] = tasks.find(self._db, name)
        return self._found[name]

    def forget(self, task_id: str) -> None:
        self._found.pop(task_id, None)


def _task_id(change: Change) -> str | None:
    """None for a submission id that is none."""
    if isinstance(change, (Hold, Admit, Reject, Note, FilesMeasured, Trashed, Deleted)):
        return change.task_id
    try:
        return ids.split_submission_id(change.submission_id)[0]
    except ValueError:
        return None


def apply(unit: UnitOfWork, task: Task, change: Change) -> bool:
    """False or Stale: the change came too late. `task` is as this transaction sees it."""
    match change:
        case Hold():
            return _hold(unit, task, change)
        case Admit():
            return _admit(unit, task, change)
        case Advance():
            return _advance(unit, task, change)
        case End():
            return _end(unit, task, change)
        case Stall():
            return _stall(unit, task, change)
        case Halt():
            return _halt(unit, task, change)
        case FilesMeasured():
            return upkeep.files_measured(unit, task, change)
        case Trashed():
            return upkeep.trashed(unit, task, change)
        case Deleted():
            return upkeep.deleted(unit, task, change)
        case Reject():
            return _reject(unit, task, change)
        case Note():
            events.add_remark(unit.db, task.task_id, unit.now, "note", change.message, change.submission_id)
            return True
        case _:
            assert_never(change)


def tell_impossible(unit: UnitOfWork, task: Task, change: Change, error: Exception) -> None:
    """The task's user and the operator see what keeps it where it is; once, since the scheduler tries again and
    again."""
    what = f"{type(change).__name__} was seen and cannot be stored: {type(error).__name__}: {error}"
    message = clean(what.removesuffix(": ")[:_MAX_ERROR_CHARS])
    if not events.has_note(unit.db, task.task_id, message):
        events.add_remark(unit.db, task.task_id, unit.now, "note", message)


def _hold(unit: UnitOfWork, task: Task, change: Hold) -> bool:
    if not task.state.is_waiting:
        return False
    reason = change.reason or task.reason or because(Code.NOT_YET)
    not_before, overtaken_since = clocks.bounded(unit, task, change)
    new = (TaskState.PENDING_RESOURCES, reason, not_before, overtaken_since)
    if (task.state, task.reason, task.not_before, task.overtaken_since) == new:
        return True
    is_move = task.state is TaskState.QUEUED
    is_told = is_move or is_news(task.reason, reason)
    held = replace(
        task,
        state=TaskState.PENDING_RESOURCES,
        reason=reason,
        not_before=not_before,
        overtaken_since=overtaken_since,
        updated_at=unit.now if is_told else task.updated_at,
    )
    if is_move:
        check_move(task.state, held.state, Cause.DOES_NOT_FIT)
        return tasks.move(unit.db, task, held, Cause.DOES_NOT_FIT, words(change.seen or reason))
    if not tasks.update(unit.db, task, held):
        return False
    if is_told:
        events.add_remark(unit.db, task.task_id, unit.now, "reason", words(reason))
    return True


def _admit(unit: UnitOfWork, task: Task, change: Admit) -> bool:
    if not task.state.is_waiting or change.number != len(task.attempts) + 1:
        return False
    if change.orders is not None and change.orders != orders.version(unit.db):
        return False  # its node may just have been cordoned
    if shares.is_above_quota(unit, task):
        return False
    root = paths.job_root(unit.ports.settings.shared_root, task.user_id, change.submission_id)
    if change.submission_id != ids.submission_id(task.task_id, change.number) or change.job_root != root:
        raise ValueError(f"the attempt {change.submission_id} in {change.job_root} is not attempt {change.number}")
    check_move(task.state, TaskState.SUBMITTING, Cause.ADMITTED)
    attempt = Attempt(
        submission_id=change.submission_id,
        task_id=task.task_id,
        number=change.number,
        state=AttemptState.SUBMITTING,
        created_at=unit.now,
        job_root=change.job_root,
        command=change.command,
        env=change.env,
        nodes=change.nodes,
        placement=change.placement,
    )
    attempts.add(unit.db, attempt)
    new = replace(_out_of_queue(task), state=TaskState.SUBMITTING, reason=None, updated_at=unit.now)
    message = f"admitted: attempt {attempt.label} starts{forecasts.judged(unit, task)}"
    _moved(tasks.move(unit.db, task, new, Cause.ADMITTED, message, change.submission_id))
    if change.note is not None:
        events.add_remark(unit.db, task.task_id, unit.now, "note", change.note, change.submission_id)
    return True


def _advance(unit: UnitOfWork, task: Task, change: Advance) -> bool:
    attempt = _attempt(task, change.submission_id)
    if attempt is None or attempt.state is AttemptState.ENDED:
        return False
    state = _reached(attempt.state, change.running)
    started_at = unit.now if state is AttemptState.RUNNING else None
    if state is attempt.state and _knows(attempt, change):
        return True
    if not attempts.advance(unit.db, attempt.state, state, change, started_at):
        return False
    if change.nodes is not None:
        where = ", ".join(node.ip for node in change.placement or ()) or "nodes that have left the pool"
        message = f"Ray had attempt {attempt.label} already: it is on {where}"
        events.add_remark(unit.db, task.task_id, unit.now, "attempt", message, attempt.submission_id)
    if state is attempt.state:
        return True
    running = state is AttemptState.RUNNING
    cause = Cause.DRIVER_STARTED if running else Cause.RAY_ACCEPTED
    new = replace(task, state=TaskState(state.value), updated_at=unit.now)
    if running and task.started_at is None:
        new = replace(new, started_at=unit.now)
    check_move(task.state, new.state, cause)
    what = "runs" if running else "was accepted by Ray"
    where = f" on {change.node_ip}" if running and change.node_ip else ""
    message = f"attempt {attempt.label} {what}{where}"
    return _moved(tasks.move(unit.db, task, new, cause, message, attempt.submission_id))


def _stall(unit: UnitOfWork, task: Task, change: Stall) -> bool:
    attempt = _attempt(task, change.submission_id)
    if attempt is None or not attempts.mark_stalled(unit.db, change):
        return False
    name = f"attempt {attempt.label}"
    stopped = attempt.stop_reason is None and change.stop_reason is not None
    if change.since is None and attempt.stalled_since is not None:
        message = f"{name} makes steps again"
    elif change.since is not None and (stopped or attempt.stalled_since is None):
        message = f"{name} has made no new step for {max(0.0, unit.now - change.since):.0f} s: {change.why}"
        message += "; it is being stopped" if stopped else ""
    else:
        return True
    events.add_remark(unit.db, task.task_id, unit.now, "attempt", message, attempt.submission_id)
    return True


def _halt(unit: UnitOfWork, task: Task, change: Halt) -> bool:
    attempt = _attempt(task, change.submission_id)
    if attempt is None or not attempts.halt(unit.db, change):
        return False
    message = f"attempt {attempt.label} is being stopped: {change.reason}"
    events.add_remark(unit.db, task.task_id, unit.now, "attempt", message, attempt.submission_id)
    return True


def _end(unit: UnitOfWork, task: Task, change: End) -> bool:
    attempt = _attempt(task, change.submission_id)
    if attempt is None or attempt.state is AttemptState.ENDED:
        return False
    name = f"attempt {attempt.label}"
    if attempt.state is AttemptState.STOPPING:
        # Cancel is final, also for one that was about to succeed. What happened is told, not lost.
        reason = change.reason
        if change.outcome is not Outcome.CANCELED:
            reason = f"canceled, but {_how(change)} first: {change.reason}".removesuffix(": ")
        if not attempts.end(unit.db, attempt.state, change, Outcome.CANCELED, reason, unit.now):
            return False
        shares.count_use(unit, task, attempt)
        usage.count(unit, task, attempt)
        message = f"{name} has ended, as its task was canceled: {reason}".removesuffix(": ")
        events.add_remark(unit.db, task.task_id, unit.now, "attempt", message, attempt.submission_id)
        return True
    policy = unit.ports.settings.scheduling.retry_policy()
    jitter = int.from_bytes(unit.ports.entropy(4), "big") / 2**32
    after = after_end(task, change, unit.now, policy, jitter)
    check_move(task.state, after.state, after.cause)
    kept = replace(change, failure=failure_of(change, after))
    if not attempts.end(unit.db, attempt.state, kept, change.outcome, change.reason, unit.now):
        return False
    shares.count_use(unit, task, attempt)
    usage.count(unit, task, attempt)
    new = replace(
        task,
        state=after.state,
        reason=after.reason,
        losses=after.losses,
        not_before=after.not_before,
        ended_at=unit.now if after.state.is_final else None,
        updated_at=unit.now,
    )
    message = _farewell(name, change, after, policy)
    return _moved(tasks.move(unit.db, task, new, after.cause, message, attempt.submission_id))


def _reject(unit: UnitOfWork, task: Task, change: Reject) -> bool:
    if not task.state.is_waiting:
        return False
    check_move(task.state, TaskState.FAILED, Cause.INVALID_INPUTS)
    new = replace(
        _out_of_queue(task), state=TaskState.FAILED, reason=change.reason, ended_at=unit.now, updated_at=unit.now
    )
    return tasks.move(unit.db, task, new, Cause.INVALID_INPUTS, change.reason)


def _moved(done: bool) -> bool:
    """For a task whose attempt is written already: both or none."""
    if not done:
        raise Stale
    return True


def _farewell(name: str, end: End, after: Aftermath, policy: RetryPolicy) -> str:
    message = f"{name} has ended: {_how(end)}"
    if end.reason:
        message += f": {end.reason}"
    if after.failed_starts:
        count = f"start {after.failed_starts} in a row that failed, of {policy.max_failed_starts} that may"
        message += f" ({count}; " + (
            "the task has failed)" if after.state.is_final else "the task is back at its place in the queue)"
        )
    elif end.was_drained:
        message += " (no loss of the task's budget; it is back at its place in the queue)"
    elif after.state is TaskState.QUEUED:
        count = f"loss {after.losses} of {policy.max_losses}{_counted(end, after)}"
        message += f" ({count}; the task is back at its place in the queue)"
    elif after.state is TaskState.PENDING_RESOURCES:
        message += (
            f" (refusal {after.refusals} of {policy.max_refusals} in a row; the task is back at its place in the queue)"
        )
    elif after.cause is Cause.ATTEMPTS_EXHAUSTED and end.outcome is Outcome.INSUFFICIENT_RESOURCES:
        message += f" (refusal {after.refusals} in a row, and {policy.max_refusals} are allowed: the task has failed)"
    elif after.cause is Cause.ATTEMPTS_EXHAUSTED:
        count = f"loss {after.losses}{_counted(end, after)}"
        message += f" ({count}, and {policy.max_losses} are allowed: the task has failed)"
    return message


def _how(end: End) -> str:
    if end.was_drained:
        return "it was stopped by an operator's order"
    return "its program never began" if end.never_began else _OUTCOME_WORDS[end.outcome]


def _counted(end: End, after: Aftermath) -> str:
    if end.achieved is None:
        return ", and whether it had made progress is not known"
    return "" if after.progress is None else f", counted anew since it {after.progress}"


def _attempt(task: Task, submission_id: str) -> Attempt | None:
    return next((attempt for attempt in task.attempts if attempt.submission_id == submission_id), None)


def _reached(old: AttemptState, running: bool) -> AttemptState:
    """An attempt never goes back, and one that is STOPPING stays so until its end."""
    if old in (AttemptState.STOPPING, AttemptState.RUNNING):
        return old
    return AttemptState.RUNNING if running else AttemptState.SUBMITTED


def _knows(attempt: Attempt, facts: Advance) -> bool:
    return (
        facts.session in (None, attempt.session)
        and facts.ray_job_id in (None, attempt.ray_job_id)
        and facts.node_id in (None, attempt.node_id)
        and facts.node_ip in (None, attempt.node_ip)
        and facts.nodes in (None, attempt.nodes)
    )


def _out_of_queue(task: Task) -> Task:
    return replace(task, not_before=None, overtaken_since=None)
