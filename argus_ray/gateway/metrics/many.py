"""Curves of several tasks in one answer, to be laid over each other. The wire, then the route.

Each task is read on its own and within a bound of its own, so one whose files are slow costs its own curves alone.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from argus_ray.core.actions import GetTask, TaskView, WhoAmI
from argus_ray.core.errors import ArgusError, FieldError, InvalidRequest, TaskNotFound, Unavailable
from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.gateway.caller import Caller, TheCaller, TheGateway, both, holder_of
from argus_ray.gateway.context import GatewayParts
from argus_ray.gateway.http import problems
from argus_ray.gateway.http.params import MetricsQuery, possible_id
from argus_ray.gateway.http.schemas import Problem
from argus_ray.gateway.metrics.schemas import MetricsOut

MAX_TASKS = 8
_MAX_ID = 128
_SLOW = "The shared filesystem does not answer. Try again."


class CurvesQuery(MetricsQuery):
    task: list[str] = Field(
        min_length=1, max_length=MAX_TASKS, description=f"Ids, {MAX_TASKS} at most; repeated, or separated by commas"
    )

    def task_ids(self) -> list[str]:
        """Each once. Raises InvalidRequest."""
        names = dict.fromkeys(name.strip() for value in self.task for name in value.split(",") if name.strip())
        if not 1 <= len(names) <= MAX_TASKS or any(len(name) > _MAX_ID for name in names):
            rule = f"1 to {MAX_TASKS} ids, each of at most {_MAX_ID} characters"
            raise InvalidRequest("These are no tasks to compare.", [FieldError("task", rule)])
        return list(names)


CurvesParams = Annotated[CurvesQuery, Query()]


class TaskCurvesOut(BaseModel):
    """Either `metrics` or `problem`."""

    task_id: str = Field(description="As it was asked for")
    state: TaskState | None = Field(description="null: no such task, or not yours")
    metrics: MetricsOut | None = Field(description="As `GET /api/v2/tasks/{task_id}/metrics` answers")
    problem: Problem | None = Field(description="As that call would be refused")


class CurvesOut(BaseModel):
    tasks: list[TaskCurvesOut] = Field(description="In the order of the query")


router = APIRouter(prefix="/api/v2", tags=["metrics"])


@router.get("/curves", response_model=CurvesOut)
async def compare_curves(caller: TheCaller, gateway: TheGateway, query: CurvesParams) -> Response:
    """Curves of up to 8 tasks. A task that is not there, or whose files do not answer, is told by its problem."""
    names, metric_names = query.task_ids(), query.asked()
    # In one batch.
    views, principal = await both(asyncio.gather(*(_view(caller, name) for name in names)), caller.do(WhoAmI()))
    tasks = [view.task for view in views if view is not None]
    metrics = await gateway.comparisons.turns.run(
        holder_of(principal), lambda: _read_all(gateway, tasks, metric_names, query)
    )
    parts = []
    for name, view in zip(names, views, strict=True):
        found = TaskNotFound() if view is None else metrics[view.task.task_id]
        parts.append(_part(caller, name, None if view is None else view.task.state, found))
    return Response(b'{"tasks":[%b]}' % b",".join(parts), media_type="application/json")


async def _view(caller: Caller, name: str) -> TaskView | None:
    try:
        return await caller.do(GetTask(possible_id(name)))
    except TaskNotFound:
        return None


async def _read_all(
    gateway: GatewayParts, tasks: Sequence[Task], names: Sequence[str], query: CurvesQuery
) -> dict[str, bytes | ArgusError]:
    """By task id: its curves as they go out, or why there are none."""
    shared = gateway.comparisons
    reads = {}
    for task in tasks:
        # As bytes: a large answer would hold up the loop.
        read = functools.partial(_read, gateway, task, names, query)
        reads[task.task_id] = asyncio.ensure_future(shared.threads.run(read, shared.task_s))
    try:
        if reads:
            await asyncio.wait(reads.values(), timeout=shared.call_s)
    finally:
        for each in reads.values():
            each.cancel()
    return {task_id: _outcome(read) for task_id, read in reads.items()}


def _read(gateway: GatewayParts, task: Task, names: Sequence[str], query: CurvesQuery) -> bytes:
    found = gateway.curves.read(task.attempts, names, since_step=query.since_step, max_points=query.max_points)
    return MetricsOut.of(task, found, gateway.read_progress(task)).model_dump_json().encode()


def _outcome(read: asyncio.Future[bytes]) -> bytes | ArgusError:
    if not read.done() or read.cancelled():
        return Unavailable(_SLOW)
    error = read.exception()
    if error is None:
        return read.result()
    if isinstance(error, (asyncio.TimeoutError, TimeoutError, OSError)):
        return Unavailable(_SLOW)
    if isinstance(error, ArgusError):
        return error
    raise error


def _part(caller: Caller, name: str, state: TaskState | None, found: bytes | ArgusError) -> bytes:
    problem = None if isinstance(found, bytes) else problems.document(found, caller.facts.request_id)
    values = (name, None if state is None else state.value, problem)
    task_id, told, problem_text = (json.dumps(value).encode() for value in values)
    metrics = found if isinstance(found, bytes) else b"null"
    return b'{"task_id":%b,"state":%b,"metrics":%b,"problem":%b}' % (task_id, told, metrics, problem_text)
