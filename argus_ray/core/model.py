"""The nouns of Argus as frozen values. Times are seconds since the Unix epoch (UTC), as floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from argus_ray.core import ids
from argus_ray.core.errors import FieldError
from argus_ray.core.estimates import Estimate
from argus_ray.core.exports import Export
from argus_ray.core.reasons import Reason
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.verl.failures import NOT_STARTED, Failure


class FilesAt(str, Enum):
    """Where the job roots of a task are."""

    JOB_ROOT = "JOB_ROOT"
    #: On their way to the trash: nobody resumes from them any more.
    LEAVING = "LEAVING"
    TRASH = "TRASH"
    DELETED = "DELETED"


class UserState(str, Enum):
    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


@dataclass(frozen=True)
class User:
    user_id: str
    display_name: str
    state: UserState
    created_at: float


@dataclass(frozen=True)
class TokenInfo:
    """What may be shown of a token. The token itself exists nowhere after its issue."""

    token_id: str
    user_id: str
    label: str
    created_at: float
    expires_at: float | None
    #: Coarse: written at most once a minute, so that a poll is not a write.
    last_used_at: float | None
    revoked_at: float | None


@dataclass(frozen=True)
class IssuedToken:
    """The one answer that carries the plain text of a token."""

    info: TokenInfo
    token: str = field(repr=False)


@dataclass(frozen=True)
class Gang:
    """What a task holds while it runs: on each of `nnodes` different nodes `gpus_per_node` GPUs and `cpus_per_node`
    CPUs."""

    nnodes: int
    gpus_per_node: int
    cpus_per_node: float

    @property
    def gpus(self) -> int:
        return self.nnodes * self.gpus_per_node

    @property
    def cpus(self) -> float:
        return self.nnodes * self.cpus_per_node


@dataclass(frozen=True)
class SlimAttempt:
    """What is followed of an attempt while it lives. Without its command, which is long and asked for seldom."""

    submission_id: str
    task_id: str
    number: int
    state: AttemptState
    created_at: float
    job_root: str
    #: Ray's session that the attempt was given to, once known.
    session: str | None = None
    #: Ray's driver job id (hex), once the driver has attached to Ray.
    ray_job_id: str | None = None
    #: Ray node id and address of the driver, once known.
    node_id: str | None = None
    node_ip: str | None = None
    started_at: float | None = None
    #: Since when it makes no step while it runs, and what is seen of the cause.
    stalled_since: float | None = None
    stalled_why: str | None = None
    #: Why Argus is stopping it, for another reason than a cancel.
    stop_reason: str | None = None
    #: As what it ends then, unless it comes to its good end before.
    stop_outcome: Outcome = Outcome.APPLICATION
    #: Ray ids of the nodes that it was assigned, the driver's first. Empty: one of a version that left it to Ray.
    nodes: tuple[str, ...] = ()
    #: Its start, moved with the clock when that is set while it lives. None: not begun, or of an earlier version.
    counts_from: float | None = None

    @property
    def used_since(self) -> float | None:
        """From when its GPUs count, in every account: fair share, usage, totals. Unix time; None: not begun."""
        return self.started_at if self.counts_from is None else self.counts_from


@dataclass(frozen=True)
class PlacedNode:
    """A node as it was when an attempt came to it: Ray's ids change with each rejoin, and tell nobody where."""

    node_id: str
    hostname: str
    ip: str
    #: That the attempt has been given there.
    gpus: int


@dataclass(frozen=True)
class OnNodes:
    """A task with an attempt that is not over."""

    task_id: str
    user_id: str
    #: On each of the nodes.
    gpus: int
    #: Ray's ids.
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Attempt(SlimAttempt):
    ended_at: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    reason: str | None = None
    failure: Failure | None = None
    #: The resolved command and environment, so that a user can repeat the run by hand.
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    #: What its job root takes; None: not known.
    disk_bytes: int | None = None
    #: In the order of `nodes`. None: not known.
    placement: tuple[PlacedNode, ...] | None = None

    @property
    def never_began(self) -> bool:
        """It has ended, and its program had not begun."""
        return self.failure is not None and self.failure.code == NOT_STARTED

    @property
    def label(self) -> str:
        """`a01`, `a02`, ...: its name where the task is known."""
        return ids.attempt_label(self.number)


@dataclass(frozen=True)
class Task:
    task_id: str
    user_id: str
    #: Place in the queue: the order of acceptance. It never changes.
    seq: int
    workload: str
    state: TaskState
    gang: Gang
    spec_yaml: str
    created_at: float
    updated_at: float
    #: Why it is in its state: data where Argus decided that it waits, text where it was said by somebody else.
    reason: Reason | str | None = None
    #: Not looked at again before this time: verl's own fit check said no, say, or an input is gone.
    not_before: float | None = None
    #: When it is looked at again at the latest. Not stored: filled in for whoever asks.
    next_retry_at: float | None = None
    #: Since when younger tasks have been starting before this one: the overtaking clock.
    overtaken_since: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    #: Attempts lost to infrastructure so far; compared with the budget.
    losses: int = 0
    #: What its inputs left in doubt when it was submitted.
    warnings: tuple[FieldError, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    #: The task that this one was made again from.
    resubmitted_from: str | None = None
    #: Job roots of other tasks, oldest first: an attempt may resume from a checkpoint there. None: nobody asked to.
    resume_roots: tuple[str, ...] | None = None
    files_at: FilesAt = FilesAt.JOB_ROOT
    #: Of the configuration, as they were chosen for it, in their order.
    presets: tuple[str, ...] = ()
    #: What verl's settings were when it was accepted, as core/verl/layers.py writes them; its attempts use these and no
    #: others. None: one of an earlier version, or in a list.
    settings: str | None = field(default=None, repr=False)
    #: It makes a Hugging Face folder of this checkpoint, and trains nothing.
    export: Export | None = None
    #: When it may start. Not stored with it: filled in for whoever asks.
    estimate: Estimate | None = None

    @property
    def live_attempt(self) -> Attempt | None:
        """The attempt that has not ended, STOPPING included. The store allows one at most."""
        return next((attempt for attempt in self.attempts if attempt.state is not AttemptState.ENDED), None)


@dataclass(frozen=True)
class SlimTask:
    """What the scheduler keeps of a task that waits, or of which an attempt lives. A CANCELED one stays until its
    attempt is over."""

    task_id: str
    user_id: str
    seq: int
    state: TaskState
    gang: Gang
    #: None also where it is text: that is nothing that a decision looks at.
    reason: Reason | None = None
    not_before: float | None = None
    overtaken_since: float | None = None
    #: The attempt that is not over.
    live: SlimAttempt | None = None

    def is_early(self, now: float) -> bool:
        """Its own time has not come."""
        return self.not_before is not None and self.not_before > now


@dataclass(frozen=True)
class QueueChanges:
    """What is new of the tasks that wait or live, since an earlier answer."""

    #: Who numbered the changes, and the number of the last one: together they ask for what comes next.
    writer: str
    version: int
    #: All that there are; what was known before is to be forgotten.
    is_whole: bool
    rows: tuple[SlimTask, ...]
    #: Places of those that neither wait nor live any more, or perhaps never did while anybody looked.
    gone: tuple[int, ...] = ()
    #: What operators have ordered about the pool; None: what it was before.
    orders: PoolOrders | None = None


@dataclass(frozen=True)
class Cordon:
    """A machine takes no new gang, by an operator's word. It holds for the machine, whatever node of Ray is there."""

    #: Its hostname, or its address where the hostname is not its own: Ray's node ids change with each rejoin.
    machine: str
    by: str
    since: float
    reason: str = ""
    #: It is to become empty.
    drain: bool = False
    #: Of a drain: when what still runs there is stopped and goes back to the queue; None: it may run to its end.
    deadline: float | None = None
    #: It does not hold any more since then.
    cleared_at: float | None = None


@dataclass(frozen=True)
class Maintenance:
    """Submissions are accepted, and nothing starts."""

    by: str
    since: float
    reason: str = ""


@dataclass(frozen=True)
class PoolOrders:
    """What operators have ordered about the pool."""

    #: It rises with each order.
    version: int = 0
    #: Of each machine that was ever named the newest one, by machine; those that were cleared, too.
    cordons: tuple[Cordon, ...] = ()
    #: None: tasks start.
    maintenance: Maintenance | None = None


@dataclass(frozen=True)
class Event:
    """One move of a task, or one thing worth telling its user."""

    event_id: int
    task_id: str
    at: float
    kind: str
    old_state: TaskState | None
    new_state: TaskState | None
    cause: str | None
    message: str
    submission_id: str | None = None


@dataclass(frozen=True)
class NodeView:
    """One live node as Ray reports it. GPUs and CPUs are counts of Ray's logical resources."""

    node_id: str
    ip: str
    is_head: bool
    gpus_total: float
    cpus_total: float
    gpus_free: float
    cpus_free: float
    #: Units of the `worker_node` resource; a node without it takes no driver.
    worker_slots_free: float
    worker_slots_total: float
    hostname: str = ""
    #: At which its raylet listens, at `ip`.
    port: int = 0
    #: Why it takes no new gang, though it has room; None: it takes some.
    barred: str | None = None
    #: How often something went wrong on it of late: of two that are as good, the other one is chosen.
    troubles: int = 0
    #: `barred` by an operator, so nobody waits for it and nothing is reserved there.
    is_cordoned: bool = False

    def with_free(self, gpus: float, cpus: float, worker_slots: float) -> NodeView:
        if (gpus, cpus, worker_slots) == (self.gpus_free, self.cpus_free, self.worker_slots_free):
            return self
        return replace(self, gpus_free=gpus, cpus_free=cpus, worker_slots_free=worker_slots)


@dataclass(frozen=True)
class Share:
    """Of one node."""

    gpus: float = 0.0
    cpus: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.gpus + other.gpus, self.cpus + other.cpus)


@dataclass(frozen=True)
class ClusterView:
    """One look at the cluster."""

    #: Ray's session name.
    session: str
    nodes: tuple[NodeView, ...]
    #: Ray's driver job id (hex) -> node id -> what placement groups of that job hold there.
    held: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)

    def gpus_of_job(self, ray_job_id: str | None) -> float:
        return sum(share.gpus for share in self.held.get(ray_job_id or "", {}).values())
