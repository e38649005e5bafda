"""The states of tasks and attempts, and the one table of legal moves with the causes that may make them.

The store refuses a move that is not here; each move is an event row with its cause in the same transaction.
"""

from __future__ import annotations

from enum import Enum

from argus_ray.core.errors import IllegalTransition


class TaskState(str, Enum):
    #: Accepted, durable, waiting in the queue.
    QUEUED = "QUEUED"
    #: Looked at and not admitted: the gang does not fit now; the reason says what is missing.
    PENDING_RESOURCES = "PENDING_RESOURCES"
    #: Admitted; the attempt is on disk, and Ray has not acknowledged it yet.
    SUBMITTING = "SUBMITTING"
    #: Ray has the job; its driver has not started.
    SUBMITTED = "SUBMITTED"
    #: The driver runs.
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @property
    def is_waiting(self) -> bool:
        return self in WAITING

    @property
    def is_active(self) -> bool:
        return self in ACTIVE


FINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED})
#: In the queue, holding nothing.
WAITING = frozenset({TaskState.QUEUED, TaskState.PENDING_RESOURCES})
#: An attempt of the task is alive, or may be.
ACTIVE = frozenset({TaskState.SUBMITTING, TaskState.SUBMITTED, TaskState.RUNNING})


class Cause(str, Enum):
    """Why a task moved. Stored in the event row."""

    ACCEPTED = "accepted"
    DOES_NOT_FIT = "does_not_fit"
    ADMITTED = "admitted"
    RAY_ACCEPTED = "ray_accepted"
    DRIVER_STARTED = "driver_started"
    SUCCEEDED = "succeeded"
    APPLICATION_FAILURE = "application_failure"
    INSUFFICIENT_RESOURCES = "insufficient_resources"
    INFRASTRUCTURE_LOSS = "infrastructure_loss"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    INVALID_INPUTS = "invalid_inputs"
    CANCELED_BY_USER = "canceled_by_user"


class AttemptState(str, Enum):
    #: On disk with its submission id; Ray may or may not know it.
    SUBMITTING = "SUBMITTING"
    #: Ray has accepted the job.
    SUBMITTED = "SUBMITTED"
    RUNNING = "RUNNING"
    #: Its task was canceled; Ray has not confirmed yet that the job is over.
    STOPPING = "STOPPING"
    #: Over; `outcome` says how.
    ENDED = "ENDED"


class Outcome(str, Enum):
    """How an attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    #: The program itself failed: the task is FAILED.
    APPLICATION = "APPLICATION"
    #: The node, the supervisor or the Ray session was lost: a new attempt, within the budget.
    INFRASTRUCTURE = "INFRASTRUCTURE"
    #: verl's own fit check refused to start: back to the queue, within a budget of its own.
    INSUFFICIENT_RESOURCES = "INSUFFICIENT_RESOURCES"
    CANCELED = "CANCELED"


_T = TaskState
_C = Cause

#: (from, to) -> the causes that may make this move.
TRANSITIONS: dict[tuple[TaskState, TaskState], frozenset[Cause]] = {
    (_T.QUEUED, _T.PENDING_RESOURCES): frozenset({_C.DOES_NOT_FIT}),
    (_T.QUEUED, _T.SUBMITTING): frozenset({_C.ADMITTED}),
    (_T.PENDING_RESOURCES, _T.SUBMITTING): frozenset({_C.ADMITTED}),
    (_T.SUBMITTING, _T.SUBMITTED): frozenset({_C.RAY_ACCEPTED}),
    # Ray may be a step ahead of us when we look for the first time after a crash.
    (_T.SUBMITTING, _T.RUNNING): frozenset({_C.DRIVER_STARTED}),
    (_T.SUBMITTED, _T.RUNNING): frozenset({_C.DRIVER_STARTED}),
    **{(s, _T.SUCCEEDED): frozenset({_C.SUCCEEDED}) for s in ACTIVE},
    **{(s, _T.FAILED): frozenset({_C.APPLICATION_FAILURE, _C.ATTEMPTS_EXHAUSTED}) for s in ACTIVE},
    # Never for a task that may have something running.
    **{(s, _T.FAILED): frozenset({_C.INVALID_INPUTS}) for s in WAITING},
    **{(s, _T.QUEUED): frozenset({_C.INFRASTRUCTURE_LOSS}) for s in ACTIVE},
    **{(s, _T.PENDING_RESOURCES): frozenset({_C.INSUFFICIENT_RESOURCES}) for s in ACTIVE},
    **{(s, _T.CANCELED): frozenset({_C.CANCELED_BY_USER}) for s in WAITING | ACTIVE},
}


def check_move(old: TaskState, new: TaskState, cause: Cause) -> None:
    """Raise IllegalTransition unless the table allows this move for this cause."""
    if cause not in TRANSITIONS.get((old, new), frozenset()):
        raise IllegalTransition(f"a task cannot go from {old.value} to {new.value} because of {cause.value}")
