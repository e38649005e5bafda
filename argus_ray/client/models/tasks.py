"""Tasks, their attempts, the queue and explanations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from argus_ray.client.models.base import Model

#: States of a task, in the order in which it goes through them. A newer server may tell others.
QUEUED: Final = "QUEUED"
PENDING_RESOURCES: Final = "PENDING_RESOURCES"
SUBMITTING: Final = "SUBMITTING"
SUBMITTED: Final = "SUBMITTED"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
CANCELED: Final = "CANCELED"
STATES: Final = (QUEUED, PENDING_RESOURCES, SUBMITTING, SUBMITTED, RUNNING, SUCCEEDED, FAILED, CANCELED)
FINAL_STATES: Final = frozenset({SUCCEEDED, FAILED, CANCELED})
WAITING_STATES: Final = frozenset({QUEUED, PENDING_RESOURCES})


class Warned(Model):
    """A rule that is in doubt."""

    SCHEMAS = ("WarningOut",)

    field: str
    rule: str


class Submitted(Model):
    """A task that was accepted."""

    SCHEMAS = ("SubmittedOut",)

    task_id: str
    state: str
    warnings: tuple[Warned, ...]


class Resubmitted(Submitted):
    """A task that was made again."""

    SCHEMAS = ("ResubmittedOut",)

    resubmitted_from: str
    presets: tuple[str, ...]
    settings_from: str


class Export(Model):
    """A Hugging Face folder that is made of a checkpoint."""

    SCHEMAS = ("ExportOut",)

    task_id: str
    exported_from: str
    step: int
    part: str
    state: str
    path: str | None


class Exported(Export):
    """One that was just accepted."""

    SCHEMAS = ("ExportedOut",)

    warnings: tuple[Warned, ...]


class Setting(Model):
    """One of verl's, and the layer that it comes from."""

    SCHEMAS = ("SettingOut",)

    key: str
    value: Any
    source: str


class Gang(Model):
    SCHEMAS = ("GangOut",)

    nnodes: int
    gpus_per_node: int
    cpus_per_node: float
    gpus: int
    cpus: float


class Headline(Model):
    """The newest loss or score."""

    SCHEMAS = ("HeadlineOut",)

    name: str
    value: float
    step: int


class Progress(Model):
    SCHEMAS = ("ProgressOut",)

    step: int
    total_steps: int | None
    steps_per_s: float | None
    seconds_left: float | None
    headline: Headline | None


class Failure(Model):
    """Why an attempt failed: a stable code, the line of the log that says so, and what to do next."""

    SCHEMAS = ("FailureOut",)

    code: str
    line: str
    hint: str


class PlacedNode(Model):
    """A node that an attempt was given, and how many of its GPUs."""

    SCHEMAS = ("PlacedNodeOut",)

    node_id: str
    hostname: str
    ip: str
    gpus: int


class Start(Model):
    """When a task will start: between `earliest` and `latest` on some `basis`, or why that is `unknown`."""

    SCHEMAS = ("StartRangeOut", "NoStartRangeOut")

    earliest: datetime | None = None
    latest: datetime | None = None
    basis: str | None = None
    unknown: str | None = None


class FirstEstimate(Model):
    """The first range that was told, `at` some time."""

    SCHEMAS = ("FirstRangeOut",)

    earliest: datetime
    latest: datetime
    basis: str
    at: datetime


class Attempt(Model):
    SCHEMAS = ("AttemptOut",)

    submission_id: str
    number: int
    state: str
    outcome: str | None
    exit_code: int | None
    reason: str | None
    failure: Failure | None
    job_root: str
    nodes: tuple[str, ...]
    node_id: str | None
    node_ip: str | None
    placement: tuple[PlacedNode, ...] | None = None
    ray_job_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    disk_bytes: int | None
    command: tuple[str, ...]
    env: Mapping[str, str]


class TaskSummary(Model):
    """A task in a list."""

    SCHEMAS = ("TaskSummary",)

    task_id: str
    user_id: str
    workload: str
    state: str
    reason: str | None
    reason_code: str | None
    position: int | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    next_retry_at: datetime | None
    gang: Gang
    progress: Progress | None
    stalled_since: datetime | None
    stalled_why: str | None
    files_at: str
    resubmitted_from: str | None
    start: Start | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def is_waiting(self) -> bool:
        return self.state in WAITING_STATES


class Task(TaskSummary):
    SCHEMAS = ("TaskOut",)

    warnings: tuple[Warned, ...]
    presets: tuple[str, ...]
    settings: tuple[Setting, ...] | None
    exports: tuple[Export, ...]
    export: Export | None
    attempts: tuple[Attempt, ...]
    spec: Mapping[str, Any] | None = None


class TaskPage(Model):
    SCHEMAS = ("TasksOut",)

    tasks: tuple[TaskSummary, ...]
    next_cursor: str | None


class Counts(Model):
    """How many tasks are in each state."""

    SCHEMAS = ("CountsOut",)

    counts: Mapping[str, int]
    total: int


class CancelResult(Model):
    """`result`: canceled, already_ended, not_found or would_cancel."""

    SCHEMAS = ("CanceledOut",)

    task_id: str
    result: str
    state: str | None


class ManyCanceled(Model):
    """`matched`: tasks that the filter found; `more`: some of them are not among the results."""

    SCHEMAS = ("ManyCanceledOut",)

    results: tuple[CancelResult, ...]
    matched: int
    more: bool


class Queue(Model):
    """Own tasks: those that wait, in the order of the queue, and those that run."""

    SCHEMAS = ("QueueOut",)

    pending: tuple[TaskSummary, ...]
    running: tuple[TaskSummary, ...]


class QueueShare(Model):
    SCHEMAS = ("QueueShareOut",)

    waiting: int
    active: int
    gpus: int


class QueueCounts(Model):
    """The queue in numbers."""

    SCHEMAS = ("QueueCountsOut",)

    own: QueueShare
    others: QueueShare


class Event(Model):
    """A change of a task and its cause."""

    SCHEMAS = ("EventOut",)

    event_id: int
    at: datetime
    kind: str
    old_state: str | None
    new_state: str | None
    cause: str | None
    message: str
    submission_id: str | None


class EventPage(Model):
    SCHEMAS = ("EventsOut",)

    events: tuple[Event, ...]
    next_cursor: str | None


class NodeShortfall(Model):
    """What a worker lacks for its share of a gang."""

    SCHEMAS = ("NodeShortfallOut",)

    gpus_free: float
    cpus_free: float
    gpus_missing: float
    cpus_missing: float
    barred: str | None


class Maintenance(Model):
    SCHEMAS = ("MaintenanceOut",)

    on: bool
    by: str | None
    since: datetime | None
    reason: str


class Explanation(Model):
    """Why a task is where it is: by a stable `code`, and in one sentence."""

    SCHEMAS = ("ExplanationOut",)

    task_id: str
    state: str
    code: str
    sentence: str
    summary: str
    would_start_now: int | None
    start: Start | None = None
    first_estimate: FirstEstimate | None = None
    position: int | None
    own_ahead: tuple[str, ...]
    others_ahead: int
    active_tasks: int
    gpus_held: int
    gpus_quota: int | None
    recent_gpu_hours: float | None
    reason: str | None
    reason_code: str | None
    next_retry_at: datetime | None
    gang: Gang
    nodes: tuple[str, ...]
    maintenance: Maintenance
    shortfall: tuple[NodeShortfall, ...] | None


class FieldRule(Model):
    """A broken rule, as a validation tells it."""

    SCHEMAS = ("FieldRule",)

    field: str
    rule: str


class Refusal(Model):
    """An error that a submission would be refused with."""

    SCHEMAS = ("RefusalOut",)

    status: int
    code: str
    title: str
    detail: str
    errors: tuple[FieldRule, ...]


class Fit(Model):
    """Whether there is room: NOW, WOULD_WAIT, NEVER_ON_THIS_POOL or UNKNOWN."""

    SCHEMAS = ("FitOut",)

    fit: str
    summary: str
    reason_code: str | None
    maintenance: Maintenance
    shortfall: tuple[NodeShortfall, ...] | None


class Limits(Model):
    """Of the caller."""

    SCHEMAS = ("LimitsOut",)

    waiting_tasks: int
    waiting_tasks_limit: int
    others_waiting: int
    gpus_held: int
    gpus_quota: int | None


class Validation(Model):
    """What a submission would be answered now, and what its first attempt would run."""

    SCHEMAS = ("ValidationOut",)

    valid: bool
    refusals: tuple[Refusal, ...]
    warnings: tuple[Warned, ...]
    gang: Gang | None
    presets: tuple[str, ...]
    settings: tuple[Setting, ...] | None
    placeholder: str | None
    command: tuple[str, ...] | None
    env: Mapping[str, str] | None
    fit: Fit | None
    #: When it may start if it is submitted now; None: there is room and nothing waits before it, or an earlier server.
    start: Start | None = None
    limits: Limits


class LastRight(Model):
    """`right` of the last `of_` ranges."""

    SCHEMAS = ("LastOut",)

    right: int
    of_: int


class Estimates(Model):
    """How often tasks started within, before and after the range that was told last, or without one."""

    SCHEMAS = ("EstimatesOut",)

    inside: int
    early: int
    late: int
    none: int
    last: LastRight
