"""What may go from the disk, and when; when files are looked at again. Pure; the store has the whereabouts,
`argus_ray.disk.trash` the hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from argus_ray.core.model import FilesAt, Task

_T = TypeVar("_T")
DAY_S = 86_400.0
#: Seconds from one look at a task that is alive to the next: an hour, less the time that a pass takes to come to it.
LIVE_AGAIN_S = 3000.0
#: A task that ended without an attempt has no files, ever.
_NEVER_S = 1000 * 365 * DAY_S


@dataclass(frozen=True)
class RetentionPolicy:
    """0: off."""

    #: From the end of a task until its job roots move to the trash; then until they are deleted.
    trash_after_days: float = 0.0
    delete_after_days: float = 0.0
    #: Newest complete checkpoints of each task that stay.
    keep_checkpoints: int = 0


class Chore(Enum):
    """What a pass over the disk does, in this order."""

    #: Measure what is alive.
    LIVE = "live"
    #: Move to the trash, and delete there.
    TRASH = "trash"
    DELETE = "delete"
    #: Measure what has ended, and take away its old checkpoints.
    ENDED = "ended"


@dataclass(frozen=True)
class JobRoot:
    submission_id: str
    #: Of its attempt, such as a01.
    label: str
    path: str


@dataclass(frozen=True)
class TaskFiles:
    """What housekeeping needs of a task."""

    task_id: str
    user_id: str
    workload: str
    #: Of the whole gang.
    gpus: int
    #: It has ended, with all its attempts.
    is_over: bool
    #: Oldest first.
    roots: tuple[JobRoot, ...] = ()


@dataclass(frozen=True)
class Chores:
    """A part of what one pass may do. The store has decided it in one transaction."""

    #: The pass's beginning, by the clock of the state actor. What was handled since then is not due in this pass.
    begun: float
    #: Of one user no more are given at once; more of his may be due.
    per_user: int
    tasks: tuple[TaskFiles, ...] = ()
    #: Of those, by id: nothing of them is alive, and nothing that is alive or waits may resume from them.
    prunable: frozenset[str] = frozenset()


class Seen(Enum):
    """How a pass saw a task whose files it has looked at."""

    ALIVE = "alive"
    #: Nothing of it is alive, and all was done that is to be done.
    OVER = "over"
    #: The same, but another task may still resume from it, so nothing was taken away.
    NEEDED = "needed"
    #: An error, or not all that is to be done: there is more to do soon.
    PARTLY = "partly"


def look_again_at(task: Task, seen: Seen, now: float, policy: RetentionPolicy) -> float:
    """The due time (`look_after`) of a task that was just looked at. What has ended changes no more, so it is looked at
    ever more seldom: when its end is twice as long ago."""
    if task.files_at is FilesAt.TRASH:
        return now + DAY_S - policy.delete_after_days * DAY_S  # it is due so long after this time
    if not is_over(task):
        return now + LIVE_AGAIN_S
    if not task.attempts:
        return now + (_NEVER_S if task.files_at is FilesAt.JOB_ROOT else DAY_S)
    if seen is Seen.ALIVE:
        return 0.0  # it has ended meanwhile
    if seen is Seen.OVER and task.ended_at is not None:
        return now + max(DAY_S, now - task.ended_at)
    return now + DAY_S


def is_over(task: Task) -> bool:
    """With all its attempts."""
    return task.state.is_final and task.live_attempt is None


def checkpoints_to_delete(newest_first: Sequence[_T], keep: int) -> Sequence[_T]:
    """Of the complete checkpoints of one task those that may go: never the newest one."""
    return newest_first[max(1, keep) :] if keep else ()
