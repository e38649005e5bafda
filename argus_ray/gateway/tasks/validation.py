"""What a submission would say and run, of which nothing is stored. The wire, then the work."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence

from pydantic import BaseModel, Field

from argus_ray.config import Settings
from argus_ray.core import ids, paths, taskspec
from argus_ray.core.actions import ForeseeSubmission, Foresight
from argus_ray.core.errors import ArgusError, BodyTooLarge, FieldError, InvalidSpec, Unavailable
from argus_ray.core.estimates import Unknown
from argus_ray.core.forecast.model import Newcomer
from argus_ray.core.model import Gang, NodeView
from argus_ray.core.orders import maintenance_words
from argus_ray.core.pool import shortfall_per_node
from argus_ray.core.prospects import Fit, prospect
from argus_ray.core.reasons import Code, words
from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import command, layers
from argus_ray.core.verl.command import gang_of
from argus_ray.disk import payload
from argus_ray.gateway.caller import Caller
from argus_ray.gateway.context import DISK
from argus_ray.gateway.http.problems import PROBLEMS
from argus_ray.gateway.http.schemas import FieldRule, MaintenanceOut
from argus_ray.gateway.tasks.estimates import StartOut, start_out
from argus_ray.gateway.tasks.schemas import GangOut, NodeShortfallOut, SettingOut, WarningOut

#: The end of a task id that no task has: in the place of when it is accepted, and of chance.
_NOBODYS = "00000000-000000-0000"


class RefusalOut(BaseModel):
    """As the problem document of a submission has it."""

    status: int
    code: str
    title: str
    detail: str
    errors: list[FieldRule]

    @classmethod
    def of(cls, error: ArgusError) -> RefusalOut:
        status, title = PROBLEMS[error.code]
        fields = [FieldRule(field=each.field, rule=each.rule) for each in error.fields]
        return cls(status=status, code=error.code, title=title, detail=error.detail, errors=fields)


class FitOut(BaseModel):
    fit: Fit = Field(description="NOW: there is room, and nobody holds it back but who waits before it")
    summary: str = Field(description="The answer in one sentence")
    reason_code: Code | None = Field(description="Why it would wait, as of a task that waits")
    maintenance: MaintenanceOut
    shortfall: list[NodeShortfallOut] | None = Field(
        description="What each worker lacks now for its share of the gang; null if the nodes are not known"
    )


class LimitsOut(BaseModel):
    """Of the caller."""

    waiting_tasks: int
    waiting_tasks_limit: int
    others_waiting: int = Field(description="Waiting tasks of others, which come before it")
    gpus_held: int
    gpus_quota: int | None = Field(description="null: any number")


class ValidationOut(BaseModel):
    valid: bool = Field(description="A submission would be accepted now")
    refusals: list[RefusalOut] = Field(
        description="What a submission would be refused with, the first one first; what cannot be looked at until "
        "these are mended is left out"
    )
    warnings: list[WarningOut]
    gang: GangOut | None
    presets: list[str]
    settings: list[SettingOut] | None
    placeholder: str | None = Field(
        description="Stands in `command` and `env` for the id of the first attempt, which has the time of the "
        "acceptance where this has zeros"
    )
    command: list[str] | None = Field(description="Of the first attempt")
    env: dict[str, str] | None
    fit: FitOut | None = Field(description="As far as a look at the pool tells; null while the gang is not known")
    start: StartOut | None = Field(
        description="When it may start if it is submitted now; null if there is room and nothing waits before it, and "
        "while the gang is not known. `not_yet`: ask again in some seconds"
    )
    limits: LimitsOut


async def validated(
    caller: Caller, text: str, presets: tuple[str, ...], worded: Callable[[ArgusError], ArgusError]
) -> ValidationOut:
    """`worded`: an error of the text as a submission would word it. Raises what concerns the caller, not the text."""
    gateway = caller.gateway
    refused: list[ArgusError] = []
    spec: TaskSpec | None = None
    own_user = await caller.own_user()
    try:
        spec = taskspec.parse(text, shared_root=gateway.settings.shared_root, own_user=own_user)
    except (InvalidSpec, BodyTooLarge) as error:
        refused.append(worded(error))
    gang = None if spec is None else gang_of(spec)
    # It authenticates: before it no file is looked at.
    seen = await caller.do(ForeseeSubmission(gang))
    settings: str | None = None
    warnings: tuple[FieldError, ...] = ()
    if spec is not None:
        try:
            settings = gateway.recipes.text(spec, seen.user_id, presets)
        except InvalidSpec as error:
            refused.append(error)
        try:
            warnings = await gateway.inputs.warnings_of(spec, own_user)
        except (InvalidSpec, Unavailable) as error:
            refused.append(error)
    if seen.refusal is not None:
        refused.append(seen.refusal)
    chosen = None if settings is None else layers.decode(settings)
    launch = None if spec is None or chosen is None else _launch(gateway.settings, spec, seen.user_id, chosen)
    fit = None if gang is None else await _fit(caller, gang, seen)
    return ValidationOut(
        valid=not refused,
        refusals=[RefusalOut.of(error) for error in refused],
        warnings=[WarningOut(field=each.field, rule=each.rule) for each in warnings],
        gang=None if gang is None else GangOut.of(gang),
        presets=list(presets),
        settings=None if chosen is None else [SettingOut.of(each) for each in chosen],
        placeholder=None if spec is None or launch is None else _placeholder(spec, seen.user_id),
        command=None if launch is None else list(launch.command),
        env=None if launch is None else dict(sorted(launch.env.items())),
        fit=fit,
        start=None if spec is None or fit is None else await _start(caller, spec, seen, fit.fit),
        limits=LimitsOut(
            waiting_tasks=seen.own_ahead,
            waiting_tasks_limit=gateway.settings.limits.waiting_tasks_of(seen.user_id),
            others_waiting=seen.others_ahead,
            gpus_held=seen.gpus_held,
            gpus_quota=seen.gpus_quota,
        ),
    )


def _placeholder(spec: TaskSpec, user_id: str) -> str:
    return ids.submission_id(f"argus-{user_id}-{spec.workload}-{_NOBODYS}", 1)


def _launch(settings: Settings, spec: TaskSpec, user_id: str, chosen: tuple[layers.Setting, ...]) -> command.Launch:
    site = settings.site(_payload_dir(settings.shared_root))
    name = _placeholder(spec, user_id)
    root = paths.job_root(settings.shared_root, user_id, name)
    return command.launch(spec, site, submission_id=name, job_root=root, chosen=chosen)


@functools.cache
def _payload_dir(shared_root: str) -> str:
    """Where the scheduler of this version publishes it: this process does not outlive the version."""
    return str(payload.folder(shared_root))


async def _start(caller: Caller, spec: TaskSpec, seen: Foresight, fit: Fit) -> StartOut | None:
    if fit is Fit.NOW and not seen.own_ahead + seen.others_ahead:
        return None
    if fit is Fit.NEVER_ON_THIS_POOL:
        return start_out(Unknown.NEVER_FITS)
    newcomer = Newcomer(seen.user_id, spec.workload, gang_of(spec))
    return start_out(await caller.gateway.look_at_start(newcomer))


async def _fit(caller: Caller, gang: Gang, seen: Foresight) -> FitOut:
    nodes: Sequence[NodeView] | None = None
    # The rest of the answer is worth having without it.
    with contextlib.suppress(Unavailable):
        nodes = await caller.gateway.look_at_nodes()
    low_disk = (await caller.gateway.readiness()).get(DISK)
    held_up = maintenance_words(seen.maintenance) if seen.maintenance is not None else low_disk
    found = prospect(gang, nodes, gpus_held=seen.gpus_held, gpus_quota=seen.gpus_quota, is_held_up=held_up is not None)
    because = words(found.reason) if found.reason is not None else held_up
    ahead = seen.own_ahead + seen.others_ahead
    line = f"; {ahead} wait before it, {seen.own_ahead} of them yours" if ahead else ""
    match found.fit:
        case Fit.NOW:
            summary = f"There is room for {gang.gpus} GPUs now{line}"
        case Fit.WOULD_WAIT:
            summary = f"It would wait: {because}{line}"
        case Fit.NEVER_ON_THIS_POOL:
            summary = f"It would wait until the pool grows: {because}"
        case Fit.UNKNOWN:
            summary = "The pool has not been seen yet"
    return FitOut(
        fit=found.fit,
        summary=summary,
        reason_code=None if found.reason is None else found.reason.code,
        maintenance=MaintenanceOut.of(seen.maintenance),
        shortfall=None if nodes is None else [NodeShortfallOut.of(each) for each in shortfall_per_node(gang, nodes)],
    )
