"""Asking for an export: the gateway looks for the checkpoint, the state actor accepts the task that makes it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.config import Settings
from argus_ray.core.actions import Exported, ExportSource, ExportTask, ReadExport
from argus_ray.core.errors import FieldError, NothingToExport
from argus_ray.core.exports import Part
from argus_ray.discovery import head_json, sentinel
from argus_ray.disk import exports
from argus_ray.disk.checkpoints import Checkpoint
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.http.body import read_json, schema_of
from argus_ray.gateway.http.params import NoQuery, TaskId
from argus_ray.gateway.tasks.routes import KEY_HEADER, LOCATION, REPLAYED, answer_headers, idempotency_key
from argus_ray.gateway.tasks.schemas import ExportOut, SubmittedOut

router = APIRouter(prefix="/api/v2/tasks", tags=["tasks"])

#: Steps that an error names.
_NAMED = 10


class ExportWish(BaseModel):
    """The body of an export; none is the same as `{}`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    step: int | None = Field(
        default=None, ge=1, lt=10**10, description="Of a complete checkpoint; without it the newest one"
    )
    part: Part = Field(default=Part.ACTOR, strict=False, description="Of a ppo checkpoint the critic can be had, too")


class ExportedOut(SubmittedOut, ExportOut):
    """The task that makes it."""

    @classmethod
    def of_export(cls, exported: Exported) -> ExportedOut:
        return cls(**ExportOut.of_seen(exported.seen).model_dump(), warnings=[])


@router.post(
    "/{task_id}:export",
    status_code=201,
    dependencies=[NoQuery],
    openapi_extra=KEY_HEADER | schema_of(ExportWish, required=False),
    responses={201: {"headers": LOCATION}, 200: REPLAYED | {"model": ExportedOut}},
)
async def export_task(
    request: Request, response: Response, caller: TheCaller, gateway: TheGateway, task_id: TaskId
) -> ExportedOut:
    """A new task of the same owner that makes a Hugging Face folder of a complete checkpoint, on a worker, without a
    GPU. The task whose checkpoint it is may still run. Answered after the new one is on disk.
    """
    wish = await read_json(request, ExportWish, optional=True)
    action = ExportTask(task_id, wish.step, wish.part, idempotency_key(request))
    found, principal = await caller.do_as(ReadExport(action))
    if isinstance(found, ExportSource):
        seen = await gateway.in_file_turn(holder_of(principal), _look, found, wish, gateway.settings)
        chosen = _choose(seen, wish.step)
        found = await caller.do(
            ExportTask(task_id, wish.step, wish.part, action.idempotency_key, chosen.step, chosen.job_root)
        )
    answer_headers(request, response, gateway, found.submitted)
    return ExportedOut.of_export(found)


def _look(source: ExportSource, wish: ExportWish, settings: Settings) -> list[Checkpoint]:
    """What was asked for; if it is not there, what is."""
    folder = head_json.folder(settings.shared_root, settings.cluster_name)

    def look(most: int, only: int | None) -> list[Checkpoint]:
        what = (source.workload, source.processes, wish.part)
        return exports.surely_exportable(source.job_roots, *what, lambda: sentinel.read(folder), most=most, only=only)

    found = look(1, wish.step)
    return found if found or wish.step is None else look(_NAMED + 1, None)


def _choose(found: Sequence[Checkpoint], step: int | None) -> Checkpoint:
    if not found:
        raise NothingToExport("the task has no complete checkpoint")
    for checkpoint in found:
        if step is None or checkpoint.step == step:
            return checkpoint
    steps = sorted({checkpoint.step for checkpoint in found}, reverse=True)
    there = ", ".join(map(str, steps[:_NAMED])) + (", ..." if len(steps) > _NAMED else "")
    raise NothingToExport(
        f"the task has no complete checkpoint of step {step}",
        [FieldError("step", f"complete checkpoints are there of: {there}")],
    )
