"""What a stream of changes asks of the control plane. One call for a caller that begins, and two that only the gateway
itself may make, for all its streams together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from argus_ray.core.actions import Action, Credential, Principal, Role
from argus_ray.core.errors import ArgusError
from argus_ray.core.model import Task
from argus_ray.core.states import TaskState

#: Nobody's bearer: no token leads to it.
GATEWAY = Credential(Role.GATEWAY)
#: Changed tasks that one answer carries.
MAX_CHANGES = 200
#: Callers that are looked at in one call.
MAX_CALLERS = 256

Counts = Mapping[TaskState, int]


@dataclass(frozen=True)
class Changed:
    """A task as it is now, without what no list shows, and the number of its newest change."""

    number: int
    task: Task


@dataclass(frozen=True)
class Watch:
    """Where a stream begins."""

    principal: Principal
    #: Whose tasks; None: everyone's. Nobody has the id "".
    owner: str | None
    #: Of the places of this scope, and by which keys of another time are known.
    key: bytes = field(repr=False)
    era: bytes
    #: The number of the newest change of all.
    newest: int
    #: Where the caller is; the number of their newest change for one that begins, or whose place is of no use.
    place: int
    #: The place is not one of this scope, or too much has changed since.
    is_lost: bool
    #: What has changed since the place, in the order of the numbers.
    changed: tuple[Changed, ...]
    counts: Counts
    #: Those that were asked for by their ids, in the same order.
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class WatchTasks(Action[Watch]):
    """Own tasks; an admin may name another user, or everyone. Forbidden, UserNotFound, TaskNotFound."""

    user_id: str | None = None
    everyone: bool = False
    #: A place as the caller was told it; None: it begins.
    after: str | None = None
    #: Tasks that it wants to know more of.
    task_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """What is new of all tasks."""

    era: bytes
    #: Up to here all is told. Lower than the number that was asked about: another database.
    newest: int
    changed: tuple[Changed, ...] = ()
    #: Of each user with a changed task.
    counts: Mapping[str, Counts] = field(default_factory=dict)
    #: Of all users together, if it was asked for and something has changed.
    total: Counts | None = None
    #: There is more.
    more: bool = False


@dataclass(frozen=True)
class ReadChanges(Action[Changes]):
    """Of all users, after this number. For the gateway alone, which tells each caller what is theirs."""

    after: int
    with_total: bool = False
    limit: int = MAX_CHANGES


@dataclass(frozen=True)
class CheckCallers(Action[Mapping[str, ArgusError]]):
    """Which of these digests of user tokens are good for nothing any more, and why. For the gateway alone."""

    digests: tuple[str, ...]
