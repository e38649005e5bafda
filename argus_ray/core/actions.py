"""What can be asked of the control plane: one frozen value a call, with who asks.

The gateway builds one and sends it to the state actor in one hop. `service.handle` authenticates, authorises and acts
in one transaction. An `Action[R]` is answered by an R, or by an ArgusError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Generic, TypeVar

from argus_ray.core.errors import ArgusError, FieldError
from argus_ray.core.estimates import Verdict
from argus_ray.core.exports import ExportSeen, Part
from argus_ray.core.model import (
    Attempt,
    Event,
    Gang,
    IssuedToken,
    Maintenance,
    OnNodes,
    PoolOrders,
    Task,
    TokenInfo,
    User,
)
from argus_ray.core.orders import Machine, NodeOrder
from argus_ray.core.states import TaskState
from argus_ray.core.task_filter import EVERYTHING, TaskFilter

R = TypeVar("R", covariant=True)


class Role(str, Enum):
    #: The bearer of ARGUS_ADMIN_TOKEN or MVP_ADMIN_TOKEN.
    ADMIN = "admin"
    #: The bearer of MVP_INTERNAL_TOKEN: an admin whose own tasks belong to the reserved user `internal`.
    INTERNAL = "internal"
    #: The bearer of a user token.
    USER = "user"
    #: The gateway itself, on nobody's behalf (core/watching.py). No token leads to it, and the proof of the call says
    #: that it comes from there (actors/proof.py).
    GATEWAY = "gateway"


#: The reserved user of the legacy single-tenant mode. Nobody can create, disable or issue tokens to it.
INTERNAL_USER = "internal"


@dataclass(frozen=True)
class Credential:
    """Who asks. For USER, `digest` is the SHA-256 of the bearer token in hex; the token itself never travels."""

    role: Role
    digest: str | None = field(default=None, repr=False)
    #: Where from; None: not known. For the audit, as is the next one.
    address: str | None = field(default=None, compare=False)
    #: The variable that holds the token, of ADMIN and INTERNAL.
    variable: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. `user_id` is None for an admin that is no user."""

    role: Role
    user_id: str | None
    #: Of a user; of the others the variable that holds the token.
    token_id: str | None = field(default=None, compare=False)
    #: Unix time; None: the token does not expire.
    expires_at: float | None = field(default=None, compare=False)

    @property
    def is_admin(self) -> bool:
        return self.role in (Role.ADMIN, Role.INTERNAL)


class Action(Generic[R]):
    """One call. R is the type of its result."""

    #: Whether it may write. Only such a call needs a savepoint of its own.
    writes: ClassVar[bool] = False


# --- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submitted:
    """What the answer to a submission tells: no more, since each one crosses from the state actor to the gateway."""

    task_id: str
    user_id: str
    state: TaskState
    warnings: tuple[FieldError, ...]
    #: The task that this one was made again from.
    resubmitted_from: str | None
    #: False: the Idempotency-Key returned a task that existed.
    created: bool
    presets: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task, *, created: bool) -> Submitted:
        return cls(task.task_id, task.user_id, task.state, task.warnings, task.resubmitted_from, created, task.presets)


@dataclass(frozen=True)
class Exported:
    """The answer to an export."""

    submitted: Submitted
    seen: ExportSeen


@dataclass(frozen=True)
class ExportSource:
    """Where checkpoints of a task may lie."""

    job_roots: tuple[str, ...]
    workload: str
    #: On how many it runs: its checkpoints are sharded among them.
    processes: int


@dataclass(frozen=True)
class TaskView:
    task: Task
    #: 1 for the head of the queue; None when the task does not wait.
    position: int | None
    #: Of its checkpoints, the newest first.
    exports: tuple[ExportSeen, ...] = ()
    #: What it makes itself, if it is one.
    export: ExportSeen | None = None


@dataclass(frozen=True)
class QueueEntry:
    task: Task
    position: int | None


@dataclass(frozen=True)
class TaskPage:
    tasks: tuple[Task, ...]
    next_cursor: int | None


class CancelResult(str, Enum):
    CANCELED = "canceled"
    WOULD_CANCEL = "would_cancel"
    ALREADY_ENDED = "already_ended"
    NOT_FOUND = "not_found"


@dataclass(frozen=True)
class CanceledOne:
    task_id: str
    result: CancelResult
    #: After the call; None: there is no such task.
    state: TaskState | None


@dataclass(frozen=True)
class ManyCanceled:
    #: In the order of the ids that were named, or as the filter finds them.
    results: tuple[CanceledOne, ...]
    #: How many tasks there are of these ids, or how many the filter has found before any was canceled.
    matched: int
    #: The filter finds more than one call cancels.
    more: bool


@dataclass(frozen=True)
class Explanation:
    task: Task
    position: int | None
    #: Own tasks before this one in the queue, by id.
    own_ahead: tuple[str, ...]
    #: Tasks of others before this one, as a count.
    others_ahead: int
    #: Own and others'.
    active_tasks: int
    #: When this was so.
    now: float = 0.0
    #: Nothing starts now, by an operator's word.
    maintenance: Maintenance | None = None
    #: By all attempts of the task's user, and the most that may be; None: any number.
    gpus_held: int = 0
    gpus_quota: int | None = None
    #: GPU-seconds of the task's user, decayed; None: the order is that of the queue.
    recent_use_s: float | None = None


@dataclass(frozen=True)
class EstimatesView:
    """What came of the first ranges that were told."""

    counts: Mapping[Verdict, int]
    #: Of the newest ones.
    right: int
    of: int


@dataclass(frozen=True)
class Resubmittable:
    """Of the task that is to be made again."""

    #: Whose the new one will be.
    user_id: str
    spec_yaml: str
    presets: tuple[str, ...]


@dataclass(frozen=True)
class Foresight:
    """Of a task that is not there."""

    user_id: str
    #: What a submission would be refused with; None: nothing.
    refusal: ArgusError | None
    #: Waiting tasks, of the caller and of others.
    own_ahead: int
    others_ahead: int
    #: The caller's.
    gpus_held: int
    gpus_quota: int | None
    maintenance: Maintenance | None


@dataclass(frozen=True)
class OrdersView:
    """What operators have ordered about the pool."""

    orders: PoolOrders
    #: While a cordon holds: the tasks with an attempt that is not over, each with the Ray ids of its nodes.
    running: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class NodesView:
    """What there is to know of the nodes beside what Ray says."""

    orders: PoolOrders
    tasks: tuple[OnNodes, ...]


# --- any caller ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShowEstimates(Action["EstimatesView"]):
    """How often the first range that was told was right: own tasks, or all for an admin."""


@dataclass(frozen=True)
class WhoAmI(Action[Principal]):
    """Who the bearer of this token is."""


@dataclass(frozen=True)
class ShowQueue(Action[tuple[QueueEntry, ...]]):
    """Own waiting and active tasks, in the order of the queue; `everyone` needs an admin."""

    everyone: bool = False


@dataclass(frozen=True)
class QueueShare:
    """Tasks that wait, those that have GPUs or are about to, and how many these have."""

    waiting: int
    active: int
    gpus: int


@dataclass(frozen=True)
class QueueCounts:
    own: QueueShare
    others: QueueShare


@dataclass(frozen=True)
class CountQueue(Action[QueueCounts]):
    """The queue in numbers: how much of it is the caller's. ADMIN owns nothing of it."""


# --- admin --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreateUser(Action[User]):
    """A new user. UserExists."""

    writes = True

    user_id: str
    display_name: str


@dataclass(frozen=True)
class GetUser(Action[User]):
    """One user. UserNotFound."""

    user_id: str


@dataclass(frozen=True)
class ListUsers(Action[tuple[User, ...]]):
    """All users but the reserved one, by id."""


@dataclass(frozen=True)
class SetUserEnabled(Action[User]):
    """Enables or disables a user. Idempotent."""

    writes = True

    user_id: str
    enabled: bool


@dataclass(frozen=True)
class IssueToken(Action[IssuedToken]):
    """A new token. `ttl_s` in seconds; None: it does not expire."""

    writes = True

    user_id: str
    label: str = ""
    ttl_s: float | None = None


@dataclass(frozen=True)
class ListTokens(Action[tuple[TokenInfo, ...]]):
    """All tokens of a user, without their text."""

    user_id: str


@dataclass(frozen=True)
class RevokeToken(Action[TokenInfo]):
    """Revokes a token. Idempotent."""

    writes = True

    user_id: str
    token_id: str


@dataclass(frozen=True)
class RequireAdmin(Action[Principal]):
    """Nothing but the check, for admin pages that are answered from elsewhere (nodes)."""


@dataclass(frozen=True)
class ShowNodes(Action[NodesView]):
    """What operators have ordered, and what is on the nodes now."""


@dataclass(frozen=True)
class ShowOrders(Action[OrdersView]):
    """Cordons and maintenance."""


@dataclass(frozen=True)
class OrderNode(Action[OrdersView]):
    """Cordons, drains or uncordons a machine. Idempotent; the newest order counts."""

    writes = True

    machine: Machine
    order: NodeOrder
    reason: str = ""
    #: Of a drain: seconds from now, until what still runs there is stopped and requeued; None: never.
    deadline_s: float | None = None


@dataclass(frozen=True)
class SetMaintenance(Action["Maintenance | None"]):
    """While it is on nothing starts. Idempotent."""

    writes = True

    on: bool
    reason: str = ""


# --- tasks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubmitTask(Action[Submitted]):
    """Accepts a task. The gateway has parsed the TaskSpec and looked at its inputs; what the state actor needs of that
    travels with the text, since it reads no file and parses nothing."""

    writes = True

    spec_yaml: str
    workload: str
    gang: Gang
    idempotency_key: str | None = None
    #: What the look at the inputs has left in doubt; stored with the task.
    warnings: tuple[FieldError, ...] = ()
    #: As they were named, and the settings of verl that came of it, as text. None: as in an earlier version.
    presets: tuple[str, ...] = ()
    settings: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FindSubmission(Action["Submitted | None"]):
    """The task that this Idempotency-Key has made from this text already; None if it has made none.

    For a text that cannot be accepted now: the key decides before the body does. Raises what SubmitTask would raise for
    this caller and this key.
    """

    spec_yaml: str
    idempotency_key: str | None = None
    presets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResubmitTask(Action[Submitted]):
    """A new task of the same owner with the same TaskSpec and the same presets. TaskNotEnded; NothingToResume."""

    writes = True

    task_id: str
    #: Also with the settings of the old task, whatever `settings` says.
    resume: bool = False
    idempotency_key: str | None = None
    warnings: tuple[FieldError, ...] = ()
    #: What the presets of the old task come to now.
    settings: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ReadResubmission(Action["Resubmittable | None"]):
    """What this call would accept again, so that the gateway can look at it first; None: its Idempotency-Key has made a
    task already. Raises what the call would raise."""

    call: ResubmitTask


@dataclass(frozen=True)
class ExportTask(Action["Exported"]):
    """A task that makes a Hugging Face folder of a checkpoint of this one. The gateway has looked at the disk: `step`
    and `job_root` are of a complete checkpoint. NothingToExport; QueueFull."""

    writes = True

    task_id: str
    #: What was asked for; None: the newest one.
    wanted_step: int | None = None
    part: Part = Part.ACTOR
    idempotency_key: str | None = None
    step: int = 0
    job_root: str = ""


@dataclass(frozen=True)
class ReadExport(Action["ExportSource | Exported"]):
    """Where to look for what this call would export; or what its Idempotency-Key has made already. Raises what the call
    would raise before anybody looks at the disk."""

    call: ExportTask


@dataclass(frozen=True)
class ForeseeSubmission(Action[Foresight]):
    """What a submission by this caller would meet now, other than its own TaskSpec. Raises what SubmitTask would raise
    for whoever asks."""

    #: None: of a TaskSpec that breaks rules.
    gang: Gang | None


@dataclass(frozen=True)
class GetTask(Action[TaskView]):
    """One task. TaskNotFound."""

    task_id: str


@dataclass(frozen=True)
class ListTasks(Action[TaskPage]):
    """Newest first; `cursor` is the `seq` of the task after which the page starts."""

    where: TaskFilter = EVERYTHING
    limit: int = 50
    cursor: int | None = None


@dataclass(frozen=True)
class CountTasks(Action[Mapping[TaskState, int]]):
    """How many there are in each state; each state is there."""

    where: TaskFilter = EVERYTHING


@dataclass(frozen=True)
class ExplainTask(Action[Explanation]):
    """Why a task waits. TaskNotFound."""

    task_id: str


@dataclass(frozen=True)
class CancelTask(Action[TaskView]):
    """Cancels a task. Idempotent; on a task that has ended it changes nothing."""

    writes = True

    task_id: str


@dataclass(frozen=True)
class CancelTasks(Action["ManyCanceled"]):
    """Cancels those tasks that are named, or else those that the filter finds and that have not ended: MAX_CANCELED at
    most. Idempotent; on tasks that have ended it changes nothing."""

    writes = True

    ids: tuple[str, ...] = ()
    #: Of an own or a named user's tasks, in states that are not final. None: `ids` counts.
    where: TaskFilter | None = None
    #: Nothing is changed.
    dry_run: bool = False


@dataclass(frozen=True)
class TaskEvents(Action[tuple[Event, ...]]):
    """Oldest first, after event id `after`."""

    task_id: str
    after: int = 0
    limit: int = 500


@dataclass(frozen=True)
class FindAttempt(Action[tuple[TaskState, Attempt | None]]):
    """The state of a task, and its attempt of this number (None: the newest). LogNotFound for a number that does not
    exist."""

    task_id: str
    attempt: int | None = None
