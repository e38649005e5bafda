"""Canceling many tasks in one call. The wire, then the route."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from argus_ray.core.actions import CancelResult, CancelTasks, ManyCanceled
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.states import TaskState
from argus_ray.core.task_filter import MAX_CANCELED, TaskFilter
from argus_ray.gateway.caller import TheCaller, TheGateway
from argus_ray.gateway.http import times
from argus_ray.gateway.http.body import read_json, schema_of
from argus_ray.gateway.http.params import NoQuery
from argus_ray.gateway.tasks.many import ids_of, states_of, workloads_of

#: Room for as many ids as a call may name, each of the longest.
MAX_BYTES = 80 * 1024
_MAX_NAMES = 16


class CancelFilter(BaseModel):
    """All that is given must hold. Tasks that have ended are never meant."""

    model_config = ConfigDict(strict=True, extra="forbid")

    state: list[str] = Field(default=[], max_length=_MAX_NAMES, description="Of those that have not ended")
    workload: list[str] = Field(default=[], max_length=_MAX_NAMES)
    since: str | None = Field(default=None, max_length=40, description="As in `GET /api/v2/tasks`")
    until: str | None = Field(default=None, max_length=40, description="As `since`")
    user_id: str | None = Field(
        default=None, max_length=64, description="Whose; own ones without it. For admins, of whom `admin` must name one"
    )

    def where(self, now: float) -> TaskFilter:
        return TaskFilter(
            states=states_of(self.state, "filter.state"),
            workloads=workloads_of(self.workload, "filter.workload"),
            since=times.time_of("filter.since", self.since, now),
            until=times.time_of("filter.until", self.until, now),
            user_id=self.user_id,
        )


class CancelMany(BaseModel):
    """Either `ids` or `filter`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_CANCELED)
    filter: CancelFilter | None = Field(default=None, description="An empty one: all own tasks that have not ended")
    dry_run: bool = Field(default=False, description="Tell what would be canceled, and change nothing")

    def action(self, now: float) -> CancelTasks:
        """Raises InvalidRequest."""
        if (self.ids is None) == (self.filter is None):
            rule = "give ids or a filter, and not both"
            raise InvalidRequest("The body breaks a rule.", [FieldError("ids, filter", rule)])
        if self.filter is not None:
            return CancelTasks(where=self.filter.where(now), dry_run=self.dry_run)
        return CancelTasks(ids_of("ids", self.ids or [], MAX_CANCELED), dry_run=self.dry_run)


class CanceledOut(BaseModel):
    task_id: str
    result: CancelResult
    state: TaskState | None = Field(description="After the call; null: no such task, or not yours")


class ManyCanceledOut(BaseModel):
    results: list[CanceledOut] = Field(
        description="In the order of `ids`; of a filter those that wait first, each group the newest first"
    )
    matched: int = Field(description="How many tasks these ids are of, or how many the filter has found")
    more: bool = Field(description=f"The filter finds more than {MAX_CANCELED}: the same call again goes on")

    @classmethod
    def of(cls, found: ManyCanceled) -> ManyCanceledOut:
        results = [CanceledOut(task_id=each.task_id, result=each.result, state=each.state) for each in found.results]
        return cls(results=results, matched=found.matched, more=found.more)


router = APIRouter(prefix="/api/v2", tags=["tasks"])


@router.post("/tasks:cancel", dependencies=[NoQuery], openapi_extra=schema_of(CancelMany))
async def cancel_tasks(request: Request, caller: TheCaller, gateway: TheGateway) -> ManyCanceledOut:
    """Cancel tasks by their ids or by a filter, 500 at most, all at one moment; each is told of. Idempotent."""
    body = await read_json(request, CancelMany, max_bytes=MAX_BYTES)
    found = await caller.do(body.action(gateway.clock()))
    if any(each.result is CancelResult.CANCELED for each in found.results):
        gateway.notify_scheduler()
    return ManyCanceledOut.of(found)
