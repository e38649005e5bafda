"""The wire, continued: tasks, the queue, explanations and events."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from argus_ray.core import flat_yaml
from argus_ray.core.actions import Explanation, QueueCounts, QueueEntry, QueueShare, Submitted, TaskView
from argus_ray.core.errors import InvalidSpec
from argus_ray.core.explaining import PoolNow, Why, largest_that_fits, sentence, why
from argus_ray.core.exports import WORKLOAD, ExportSeen, Part
from argus_ray.core.model import Attempt, Event, FilesAt, Gang, PlacedNode, Task
from argus_ray.core.orders import maintenance_words
from argus_ray.core.pool import NodeShortfall, shortfall_per_node
from argus_ray.core.reasons import Code, Reason, have_now, words
from argus_ray.core.states import AttemptState, Outcome, TaskState
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import layers
from argus_ray.core.verl.failures import Failure
from argus_ray.core.verl.layers import Setting
from argus_ray.core.verl.metrics import Headline
from argus_ray.gateway.http.schemas import MaintenanceOut, Time, rfc3339, time_or_none
from argus_ray.gateway.metrics.progress import Progress
from argus_ray.gateway.tasks.estimates import FirstRangeOut, StartOut, first_of, start_of


class WarningOut(BaseModel):
    field: str
    rule: str

    @classmethod
    def all_of(cls, task: Task | Submitted) -> list[WarningOut]:
        return [cls(field=warning.field, rule=warning.rule) for warning in task.warnings]


class SubmittedOut(BaseModel):
    task_id: str
    state: TaskState
    warnings: list[WarningOut] = Field(description="What the inputs leave in doubt; the task is accepted all the same")

    @classmethod
    def of(cls, task: Submitted) -> SubmittedOut:
        return cls(task_id=task.task_id, state=task.state, warnings=WarningOut.all_of(task))


class Resubmission(BaseModel):
    """The body of a resubmission; none is the same as `{}`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    resume: bool = Field(default=False, description="Go on from the newest complete checkpoint of the old task")


class ResubmittedOut(SubmittedOut):
    resubmitted_from: str
    presets: list[str] = Field(description="Those of the old task")
    settings_from: Literal["task", "configuration"] = Field(
        description="`task`: verl's settings are those that the old task was accepted with; `configuration`: what its "
        "presets and the operator's rules come to today"
    )

    @classmethod
    def of_copy(cls, task: Submitted, old_id: str, *, resume: bool) -> ResubmittedOut:
        return cls(
            **SubmittedOut.of(task).model_dump(),
            resubmitted_from=task.resubmitted_from or old_id,
            presets=list(task.presets),
            settings_from="task" if resume else "configuration",
        )


class SettingOut(BaseModel):
    key: str = Field(description="As verl's own configuration has it")
    value: JsonValue
    source: str = Field(description="`default`, `rule N` or `preset NAME`: the layer that won")

    @classmethod
    def of(cls, setting: Setting) -> SettingOut:
        return cls(key=setting.key, value=setting.value, source=setting.source)


@functools.lru_cache(maxsize=256)
def _settings_out(text: str) -> tuple[SettingOut, ...] | None:
    try:
        return tuple(map(SettingOut.of, layers.decode(text)))
    except (ValueError, TypeError, RecursionError):
        return None  # of another version of Argus: one odd row must not hide the task


@functools.lru_cache(maxsize=256)
def _spec_out(text: str) -> dict[str, str | int] | None:
    try:
        values, broken = flat_yaml.read(text.encode(), TaskSpec.model_fields)
    except InvalidSpec:
        return None
    return None if broken else {name: value for name, value in values.items() if value is not None}


class ExportOut(BaseModel):
    """A Hugging Face folder that is made of a checkpoint, by a task of its own."""

    task_id: str
    exported_from: str = Field(description="The task whose checkpoint it is")
    step: int
    part: Part
    state: TaskState
    path: str | None = Field(description="The folder; null until it is made, and when its files are in the trash")

    @classmethod
    def of_seen(cls, seen: ExportSeen) -> ExportOut:
        return cls(
            task_id=seen.task_id,
            exported_from=seen.of,
            step=seen.step,
            part=seen.part,
            state=seen.state,
            path=seen.path,
        )


class GangOut(BaseModel):
    nnodes: int
    gpus_per_node: int
    cpus_per_node: float
    gpus: int
    cpus: float

    @classmethod
    def of(cls, gang: Gang) -> GangOut:
        return cls(
            nnodes=gang.nnodes,
            gpus_per_node=gang.gpus_per_node,
            cpus_per_node=gang.cpus_per_node,
            gpus=gang.gpus,
            cpus=gang.cpus,
        )


class HeadlineOut(BaseModel):
    name: str
    value: float
    step: int

    @classmethod
    def of(cls, headline: Headline | None) -> HeadlineOut | None:
        return None if headline is None else cls(name=headline.name, value=headline.value, step=headline.step)


class ProgressOut(BaseModel):
    step: int
    total_steps: int | None = Field(description="null if neither the TaskSpec nor verl's log tells")
    steps_per_s: float | None = Field(description="Of the last steps; null while it is not known")
    seconds_left: float | None = Field(description="null while it is not known, and when the task does not run")
    headline: HeadlineOut | None = Field(description="The newest loss (sft) or score (ppo, grpo)")

    @classmethod
    def of(cls, progress: Progress | None) -> ProgressOut | None:
        if progress is None:
            return None
        return cls(
            step=progress.step,
            total_steps=progress.total_steps,
            steps_per_s=progress.steps_per_s,
            seconds_left=progress.seconds_left,
            headline=HeadlineOut.of(progress.headline),
        )


class FailureOut(BaseModel):
    code: str = Field(description="Stable, for programs; `unknown` if the log does not say why")
    line: str = Field(description="The line of the log that says why; empty if there is none")
    hint: str = Field(description="What to do next, in one sentence")

    @classmethod
    def of(cls, failure: Failure | None) -> FailureOut | None:
        return None if failure is None else cls(code=failure.code, line=failure.line, hint=failure.hint)


class PlacedNodeOut(BaseModel):
    node_id: str
    hostname: str
    ip: str
    gpus: int = Field(description="That the attempt has been given there")

    @classmethod
    def of(cls, node: PlacedNode) -> PlacedNodeOut:
        return cls(node_id=node.node_id, hostname=node.hostname, ip=node.ip, gpus=node.gpus)


class AttemptOut(BaseModel):
    submission_id: str
    number: int
    state: AttemptState
    outcome: Outcome | None
    exit_code: int | None
    reason: str | None
    failure: FailureOut | None = Field(description="null unless the attempt's program failed")
    job_root: str
    nodes: list[str] = Field(description="Ray's ids of the nodes that it was assigned, the driver's first")
    placement: list[PlacedNodeOut] | None = Field(
        description="The same nodes as they were when it came to them; null: not known, as of one of an early version"
    )
    #: The driver's node and Ray's own id of the driver, for the Ray dashboard.
    node_id: str | None
    node_ip: str | None
    ray_job_id: str | None
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    disk_bytes: int | None = Field(description="What its job root takes; null: not measured yet, or too many files")
    #: What ran, so that a user can repeat it by hand.
    command: list[str]
    env: dict[str, str]

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptOut:
        return cls(
            submission_id=attempt.submission_id,
            number=attempt.number,
            state=attempt.state,
            outcome=attempt.outcome,
            exit_code=attempt.exit_code,
            reason=attempt.reason,
            failure=FailureOut.of(attempt.failure),
            job_root=attempt.job_root,
            nodes=list(attempt.nodes),
            placement=None if attempt.placement is None else list(map(PlacedNodeOut.of, attempt.placement)),
            node_id=attempt.node_id,
            node_ip=attempt.node_ip,
            ray_job_id=attempt.ray_job_id,
            created_at=rfc3339(attempt.created_at),
            started_at=time_or_none(attempt.started_at),
            ended_at=time_or_none(attempt.ended_at),
            disk_bytes=attempt.disk_bytes,
            command=list(attempt.command),
            env=dict(attempt.env),
        )


class TaskSummary(BaseModel):
    """A task in a list. Its owner and admins see it, and nobody else."""

    task_id: str
    user_id: str
    workload: str = Field(description="ppo, grpo or sft; or export, which trains nothing")
    state: TaskState
    reason: str | None = Field(description="Why it is in its state, in words")
    reason_code: Code | None = Field(description="The same as data, while the task waits; null for other words")
    position: int | None = Field(description="1 for the head of the queue; null when the task does not wait")
    created_at: Time
    updated_at: Time
    started_at: Time | None
    ended_at: Time | None
    next_retry_at: Time | None
    gang: GangOut
    progress: ProgressOut | None
    stalled_since: Time | None = Field(description="Since when it runs without a new step, if for too long")
    stalled_why: str | None
    start: StartOut | None = Field(
        description="When it may start, at most a minute old: a range, or why there is none. null when it does not wait"
    )
    files_at: FilesAt = Field(description="Where its job roots are; LEAVING: on their way to the trash")
    resubmitted_from: str | None = Field(description="The task that this one was made again from")

    @classmethod
    def of(cls, task: Task, position: int | None, progress: Progress | None) -> TaskSummary:
        return cls.model_validate(_summary(task, position, progress))


class TaskOut(TaskSummary):
    spec: dict[str, str | int] | None = Field(
        description="The TaskSpec as data, its defaults left out. null: one of another version, which only "
        "`/spec` tells; for an export"
    )
    warnings: list[WarningOut] = Field(description="What the inputs left in doubt at the submission")
    presets: list[str] = Field(description="As they were chosen at the submission")
    settings: list[SettingOut] | None = Field(
        description="What verl is told beyond the TaskSpec, as the task was accepted with it; each attempt uses it. "
        "null: a task of a version that stored none"
    )
    exports: list[ExportOut] = Field(description="Of its checkpoints, the newest first, 50 at most")
    export: ExportOut | None = Field(description="What it makes, if it is an export itself")
    attempts: list[AttemptOut]

    @classmethod
    def of_view(cls, view: TaskView, progress: Progress | None) -> TaskOut:
        attempts = [AttemptOut.of(attempt) for attempt in view.task.attempts]
        text = view.task.settings
        more = {
            "spec": None if view.task.workload == WORKLOAD else _spec_out(view.task.spec_yaml),
            "warnings": WarningOut.all_of(view.task),
            "presets": list(view.task.presets),
            "settings": None if text is None else _settings_out(text),
            "exports": [ExportOut.of_seen(seen) for seen in view.exports],
            "export": None if view.export is None else ExportOut.of_seen(view.export),
            "attempts": attempts,
        }
        return cls.model_validate(_summary(view.task, view.position, progress) | more)


def _summary(task: Task, position: int | None, progress: Progress | None) -> dict[str, object]:
    stalled = _stalled(task)
    return {
        "task_id": task.task_id,
        "user_id": task.user_id,
        "workload": task.workload,
        "state": task.state,
        "reason": _words(task),
        "reason_code": _code(task),
        "position": position,
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "started_at": time_or_none(task.started_at),
        "ended_at": time_or_none(task.ended_at),
        "next_retry_at": time_or_none(task.next_retry_at),
        "gang": GangOut.of(task.gang),
        "progress": ProgressOut.of(progress),
        "stalled_since": time_or_none(stalled.stalled_since if stalled else None),
        "stalled_why": stalled.stalled_why if stalled else None,
        "start": start_of(task, position),
        "files_at": task.files_at,
        "resubmitted_from": task.resubmitted_from,
    }


def _words(task: Task) -> str | None:
    return None if task.reason is None else words(task.reason)


def _code(task: Task) -> Code | None:
    return task.reason.code if isinstance(task.reason, Reason) else None


def _stalled(task: Task) -> Attempt | None:
    running = (attempt for attempt in task.attempts if attempt.state is AttemptState.RUNNING)
    return next((attempt for attempt in running if attempt.stalled_since is not None), None)


class TasksOut(BaseModel):
    tasks: list[TaskSummary]
    next_cursor: str | None = Field(description="null on the last page")


class QueueOut(BaseModel):
    #: In the order of the queue.
    pending: list[TaskSummary]
    #: Those that hold GPUs, or are about to.
    running: list[TaskSummary]

    @classmethod
    def of(cls, entries: Sequence[QueueEntry], progress: dict[str, Progress]) -> QueueOut:
        pending: list[TaskSummary] = []
        running: list[TaskSummary] = []
        for entry in entries:
            line = TaskSummary.of(entry.task, entry.position, progress.get(entry.task.task_id))
            (pending if entry.task.state.is_waiting else running).append(line)
        return cls(pending=pending, running=running)


class QueueShareOut(BaseModel):
    waiting: int
    active: int = Field(description="Tasks that hold GPUs, or are about to")
    gpus: int = Field(description="That they hold; those of canceled ones until these have left")

    @classmethod
    def of(cls, share: QueueShare) -> QueueShareOut:
        return cls(waiting=share.waiting, active=share.active, gpus=share.gpus)


class QueueCountsOut(BaseModel):
    own: QueueShareOut
    others: QueueShareOut

    @classmethod
    def of(cls, counts: QueueCounts) -> QueueCountsOut:
        return cls(own=QueueShareOut.of(counts.own), others=QueueShareOut.of(counts.others))


class NodeShortfallOut(BaseModel):
    gpus_free: float
    cpus_free: float
    gpus_missing: float
    cpus_missing: float
    barred: str | None = Field(description="Why this worker takes no gang now, whatever it has free")

    @classmethod
    def of(cls, node: NodeShortfall) -> NodeShortfallOut:
        return cls(
            gpus_free=node.gpus_free,
            cpus_free=node.cpus_free,
            gpus_missing=node.gpus_missing,
            cpus_missing=node.cpus_missing,
            barred=node.barred,
        )


class ExplanationOut(BaseModel):
    task_id: str
    state: TaskState
    code: Why = Field(
        description="Why it is where it is, at this moment. `reason_code` is what is stored, and stays the same for as "
        "long as the pool has the same nodes"
    )
    sentence: str = Field(description="The code in one sentence, with its numbers")
    summary: str = Field(description="The same with its place in the queue, in words that may change")
    would_start_now: int | None = Field(
        description="The most nodes that a gang of this shape would get now, if it were submitted with so many; null "
        "when the task does not wait or the pool is not known"
    )
    start: StartOut | None = Field(
        description="When it may start, at most a minute old: a range, or why there is none. null when it does not wait"
    )
    first_estimate: FirstRangeOut | None = Field(
        description="The first range that was told of this wait, or of the last one; null: none was"
    )
    position: int | None
    own_ahead: list[str] = Field(description="Your tasks before this one in the queue")
    others_ahead: int = Field(description="How many tasks of others are before this one")
    active_tasks: int = Field(description="Tasks that hold GPUs now, of everyone")
    gpus_held: int = Field(description="GPUs that the attempts of the task's user hold now")
    gpus_quota: int | None = Field(description="The most that they may hold at a time; null: any number")
    recent_gpu_hours: float | None = Field(
        description="What the task's user has used of late, older use counting less; with fair share the tasks of who "
        "has used the least go first. null: fair share is off, and the order is that of the queue"
    )
    reason: str | None
    reason_code: Code | None
    next_retry_at: Time | None
    gang: GangOut
    nodes: list[str] = Field(description="Ray's ids of the nodes that its live attempt was assigned")
    maintenance: MaintenanceOut = Field(description="While it is on nothing starts")
    shortfall: list[NodeShortfallOut] | None = Field(
        description="What each worker lacks now for its share of the gang, the nearest first; null when the task does "
        "not wait or the nodes are not known"
    )

    @classmethod
    def of(cls, found: Explanation, pool: PoolNow | None) -> ExplanationOut:
        task, maintenance = found.task, found.maintenance
        shortfall = None if pool is None else shortfall_per_node(task.gang, pool.free)
        code = why(task, maintenance, pool, found.now)
        return cls(
            code=code,
            sentence=sentence(code, task, maintenance=maintenance, pool=pool, gpus_held=found.gpus_held),
            would_start_now=None if pool is None else _would_start(found, pool),
            task_id=task.task_id,
            state=task.state,
            summary=_why(found, shortfall),
            start=start_of(task, found.position),
            first_estimate=first_of(task.estimate),
            position=found.position,
            own_ahead=list(found.own_ahead),
            others_ahead=found.others_ahead,
            active_tasks=found.active_tasks,
            gpus_held=found.gpus_held,
            gpus_quota=found.gpus_quota,
            recent_gpu_hours=None if found.recent_use_s is None else round(found.recent_use_s / 3600, 3),
            reason=_words(task),
            reason_code=_code(task),
            next_retry_at=time_or_none(task.next_retry_at),
            gang=GangOut.of(task.gang),
            nodes=list(task.live_attempt.nodes) if task.live_attempt else [],
            maintenance=MaintenanceOut.of(found.maintenance),
            shortfall=None if shortfall is None else [NodeShortfallOut.of(node) for node in shortfall],
        )


def _would_start(found: Explanation, pool: PoolNow) -> int:
    if found.maintenance is not None or pool.is_low_disk:
        return 0
    to_spare = None if found.gpus_quota is None else found.gpus_quota - found.gpus_held
    return largest_that_fits(found.task.gang, pool.left, gpus_to_spare=to_spare)


def _why(found: Explanation, shortfall: Sequence[NodeShortfall] | None) -> str:
    task = found.task
    because = f": {_words(task)}" if task.reason else "."
    if _code(task) is Code.POOL_BUSY and shortfall is not None:
        # What is stored does not change with what is free, so this moment is told here.
        because += f"; {have_now(sum(not (node.gpus_missing or node.cpus_missing) for node in shortfall))}"
    if _code(task) is Code.OVER_QUOTA:
        because += f"; it holds {found.gpus_held} now"
    if not task.state.is_waiting:
        stalled = _stalled(task)
        if stalled is not None and stalled.stalled_since is not None:
            because = f", without a new step since {rfc3339(stalled.stalled_since)}: {stalled.stalled_why}"
        return f"The task is {task.state.value}{because}"
    ahead = len(found.own_ahead) + found.others_ahead
    line = (
        "it is at the head of the queue" if not ahead else f"{ahead} ahead of it, {len(found.own_ahead)} of them yours"
    )
    if found.maintenance is not None:
        because = f"; {maintenance_words(found.maintenance)}"
    if found.recent_use_s is not None:
        line += f", and who has used the least of late goes first (its user: {found.recent_use_s / 3600:.1f} GPU hours)"
    wanted = f"{task.gang.gpus} GPUs" if task.gang.gpus else f"{task.gang.cpus:g} CPUs"
    return f"The task waits for {wanted}; {line}{because}"


class EventOut(BaseModel):
    event_id: int
    at: Time
    kind: str
    old_state: TaskState | None
    new_state: TaskState | None
    cause: str | None
    message: str
    submission_id: str | None

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls(
            event_id=event.event_id,
            at=rfc3339(event.at),
            kind=event.kind,
            old_state=event.old_state,
            new_state=event.new_state,
            cause=event.cause,
            message=event.message,
            submission_id=event.submission_id,
        )


class EventsOut(BaseModel):
    events: list[EventOut]
    next_cursor: str | None = Field(description="null on the last page")
