"""What can be asked of the control plane: one frozen value per call, with who asks.

The gateway builds one and sends it to the state actor in one hop; `service.handle` authenticates, authorises and
acts in one transaction. Each action's docstring names its result type.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from argus_ray.core.errors import FieldError
from argus_ray.core.model import Attempt, Event, IssuedToken, Task, TokenInfo, User
from argus_ray.core.states import TaskState
from argus_ray.core.taskspec import TaskSpec


class Role(str, Enum):
    #: The bearer of ARGUS_ADMIN_TOKEN or MVP_ADMIN_TOKEN.
    ADMIN = "admin"
    #: The bearer of MVP_INTERNAL_TOKEN: an admin whose own tasks belong to the reserved user `internal`.
    INTERNAL = "internal"
    #: The bearer of a user token.
    USER = "user"


#: The reserved user of the legacy single-tenant mode. Nobody can create, disable or issue tokens to it.
INTERNAL_USER = "internal"


@dataclass(frozen=True)
class Credential:
    """Who asks. For USER, `digest` is the SHA-256 of the bearer token in hex; the token itself never travels."""

    role: Role
    digest: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. `user_id` is None for an admin that is no user."""

    role: Role
    user_id: str | None

    @property
    def is_admin(self) -> bool:
        return self.role in (Role.ADMIN, Role.INTERNAL)


# --- any caller ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WhoAmI:
    """-> Principal"""


@dataclass(frozen=True)
class ShowQueue:
    """-> tuple[QueueEntry, ...]: own waiting and active tasks, in line order; `everyone` needs an admin."""

    everyone: bool = False


# --- admin --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreateUser:
    """-> User"""

    user_id: str
    display_name: str


@dataclass(frozen=True)
class GetUser:
    """-> User"""

    user_id: str


@dataclass(frozen=True)
class ListUsers:
    """-> tuple[User, ...]"""


@dataclass(frozen=True)
class SetUserEnabled:
    """-> User. Idempotent."""

    user_id: str
    enabled: bool


@dataclass(frozen=True)
class IssueToken:
    """-> IssuedToken. `ttl_s` in seconds; None: it does not expire."""

    user_id: str
    label: str = ""
    ttl_s: float | None = None


@dataclass(frozen=True)
class ListTokens:
    """-> tuple[TokenInfo, ...]"""

    user_id: str


@dataclass(frozen=True)
class RevokeToken:
    """-> TokenInfo. Idempotent."""

    user_id: str
    token_id: str


@dataclass(frozen=True)
class RequireAdmin:
    """-> Principal: nothing but the check, for admin pages that are answered from elsewhere (nodes)."""


# --- tasks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubmitTask:
    """-> Submitted"""

    spec_yaml: str
    idempotency_key: str | None = None
    #: What the look at the inputs has left in doubt; stored with the task.
    warnings: tuple[FieldError, ...] = ()


@dataclass(frozen=True)
class ResubmitTask:
    """-> Submitted: a new task of the same owner with the same TaskSpec. TaskNotEnded; NothingToResume."""

    task_id: str
    resume: bool = False
    idempotency_key: str | None = None
    warnings: tuple[FieldError, ...] = ()


@dataclass(frozen=True)
class ReadSubmission:
    """-> TaskSpec | None: the one that this call would accept now, so that its inputs can be looked at first, outside
    of the one process that owns the database; None: its Idempotency-Key has a task already. Changes nothing."""

    call: SubmitTask | ResubmitTask


@dataclass(frozen=True)
class GetTask:
    """-> TaskView"""

    task_id: str


@dataclass(frozen=True)
class ListTasks:
    """-> TaskPage: newest first; `cursor` is the `seq` below which the page starts."""

    states: tuple[TaskState, ...] = ()
    limit: int = 50
    cursor: int | None = None
    #: Another user's tasks: admin only.
    user_id: str | None = None


@dataclass(frozen=True)
class ExplainTask:
    """-> Explanation"""

    task_id: str


@dataclass(frozen=True)
class CancelTask:
    """-> TaskView. Idempotent; on a task that has ended it changes nothing."""

    task_id: str


@dataclass(frozen=True)
class TaskEvents:
    """-> tuple[Event, ...], oldest first, after event id `after`."""

    task_id: str
    after: int = 0
    limit: int = 500


@dataclass(frozen=True)
class FindAttempt:
    """-> tuple[TaskState, Attempt | None]: of `attempt` (a number; None: the newest); LogNotFound for a number
    that does not exist."""

    task_id: str
    attempt: int | None = None


Action = (
    WhoAmI
    | ShowQueue
    | CreateUser
    | GetUser
    | ListUsers
    | SetUserEnabled
    | IssueToken
    | ListTokens
    | RevokeToken
    | RequireAdmin
    | ReadSubmission
    | SubmitTask
    | ResubmitTask
    | GetTask
    | ListTasks
    | ExplainTask
    | CancelTask
    | TaskEvents
    | FindAttempt
)


# --- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submitted:
    task: Task
    #: False: the Idempotency-Key returned a task that existed.
    created: bool


@dataclass(frozen=True)
class TaskView:
    task: Task
    #: 1 for the head of the line; None when the task does not wait.
    position: int | None


@dataclass(frozen=True)
class QueueEntry:
    task: Task
    position: int | None


@dataclass(frozen=True)
class TaskPage:
    tasks: tuple[Task, ...]
    next_cursor: int | None


@dataclass(frozen=True)
class Explanation:
    task: Task
    position: int | None
    #: Own tasks before this one in the line, by id.
    own_ahead: tuple[str, ...]
    #: Tasks of others before this one, as a count.
    others_ahead: int
    #: GPUs held or claimed by tasks that are active, own and others'.
    active_tasks: int


Result = (
    Principal
    | User
    | tuple[User, ...]
    | IssuedToken
    | TokenInfo
    | tuple[TokenInfo, ...]
    | TaskSpec
    | None
    | Submitted
    | TaskView
    | TaskPage
    | Explanation
    | tuple[QueueEntry, ...]
    | tuple[Event, ...]
    | tuple[TaskState, Attempt | None]
)
