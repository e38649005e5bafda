"""What the scheduler may change about a task, and what the end of an attempt means for its task.

The scheduler sends `Change` values to the state actor, which applies each one only if the task and the attempt are
still where the scheduler saw them (a guarded update): a change that came too late is dropped, not forced.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from argus_ray.core.model import Task
from argus_ray.core.states import Cause, Outcome, TaskState
from argus_ray.core.verl.failures import Failure


@dataclass(frozen=True)
class RetryPolicy:
    """Budgets of an attempt's end. Seconds, and counts of attempts."""

    #: Attempts that may be lost to infrastructure before the task is FAILED.
    max_losses: int = 5
    #: After verl's own fit check said no: the first wait; it doubles up to `max_retry_interval_s`.
    retry_interval_s: float = 60.0
    max_retry_interval_s: float = 600.0


@dataclass(frozen=True)
class Hold:
    """The task is not admitted now. Moves QUEUED to PENDING_RESOURCES; refreshes the reason of one that is there.
    An event row is written only for the move or for a new reason."""

    task_id: str
    reason: str
    next_retry_at: float | None
    overtaken_since: float | None


@dataclass(frozen=True)
class Admit:
    """The gang may start: moves a waiting task to SUBMITTING and creates its attempt `number`, before Ray is called."""

    task_id: str
    number: int
    submission_id: str
    job_root: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    #: Worth telling the task's user, if it is admitted.
    note: str | None = None


@dataclass(frozen=True)
class Advance:
    """Ray was seen to hold the attempt: SUBMITTED, or RUNNING when `running`. Facts that are None stay as they were.
    On an attempt that is STOPPING only the facts are stored."""

    submission_id: str
    running: bool
    session: str | None = None
    ray_job_id: str | None = None
    node_id: str | None = None
    node_ip: str | None = None


@dataclass(frozen=True)
class End:
    """The attempt is over. The task moves as `after_end` says; an attempt that was STOPPING ends as CANCELED and
    its task stays CANCELED."""

    submission_id: str
    outcome: Outcome
    reason: str
    exit_code: int | None = None
    #: What the program's log says of it, if the program failed.
    failure: Failure | None = None


@dataclass(frozen=True)
class Reject:
    """The task cannot run as it is (an input is gone): a waiting task is FAILED without another attempt."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth telling the task's user, without a move."""

    task_id: str
    message: str
    submission_id: str | None = None


@dataclass(frozen=True)
class Stall:
    """The attempt runs and has made no step since then; without a time: it makes steps again. Its state stays. With
    `stop_reason` it is to be stopped, and that is why its task will be FAILED."""

    submission_id: str
    since: float | None = None
    why: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True)
class Looked:
    """The slow pass over the disk was at this task's files. `sizes`: submission ids with bytes, where known."""

    task_id: str
    sizes: tuple[tuple[str, int], ...] = ()
    #: Worth telling, such as what was removed.
    message: str | None = None


@dataclass(frozen=True)
class Removed:
    """The job roots of the task are in the trash, or `deleted` from there."""

    task_id: str
    deleted: bool
    message: str | None


Change = Hold | Admit | Advance | End | Reject | Note | Stall | Looked | Removed


@dataclass(frozen=True)
class Aftermath:
    """Where a task goes when its attempt ended."""

    state: TaskState
    cause: Cause
    reason: str | None
    losses: int
    not_before: float | None = field(default=None)


def after_end(task: Task, end: End, now: float, policy: RetryPolicy, entropy: float) -> Aftermath:
    """The move of an active task whose attempt ended. `entropy` in [0, 1) spreads retries (jitter).

    Lost attempts and refused ones go back to the task's old place in the line; only losses spend the budget.
    """
    if end.outcome is Outcome.SUCCEEDED:
        return Aftermath(TaskState.SUCCEEDED, Cause.SUCCEEDED, None, task.losses)
    if end.outcome is Outcome.CANCELED:
        return Aftermath(TaskState.CANCELED, Cause.CANCELED_BY_USER, end.reason, task.losses)
    if end.outcome is Outcome.APPLICATION:
        return Aftermath(TaskState.FAILED, Cause.APPLICATION_FAILURE, end.reason, task.losses)
    if end.outcome is Outcome.INSUFFICIENT_RESOURCES:
        refusals = sum(a.outcome is Outcome.INSUFFICIENT_RESOURCES for a in task.attempts)
        wait = min(policy.retry_interval_s * 2 ** min(refusals, 16), policy.max_retry_interval_s)
        wait *= 1 + 0.2 * entropy
        return Aftermath(
            TaskState.PENDING_RESOURCES, Cause.INSUFFICIENT_RESOURCES, end.reason, task.losses, not_before=now + wait
        )
    losses = task.losses + 1
    if losses > policy.max_losses:
        reason = f"lost {losses} attempts to infrastructure, and the budget is {policy.max_losses}: {end.reason}"
        return Aftermath(TaskState.FAILED, Cause.ATTEMPTS_EXHAUSTED, reason, losses)
    return Aftermath(TaskState.QUEUED, Cause.INFRASTRUCTURE_LOSS, end.reason, losses)
