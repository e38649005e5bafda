"""Many tasks at once: lists and counts by a filter. The wire, then the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from argus_ray.core.actions import CountTasks, ListTasks
from argus_ray.core.errors import FieldError, InvalidRequest
from argus_ray.core.states import TaskState
from argus_ray.core.task_filter import KINDS, MAX_IDS, TAIL, TaskFilter
from argus_ray.gateway.caller import TheCaller, TheGateway
from argus_ray.gateway.http import times
from argus_ray.gateway.http.params import PageQuery, StrictQuery, decode_cursor, encode_cursor
from argus_ray.gateway.tasks.schemas import TasksOut, TaskSummary

_MAX_ID = 128
_STATES = ", ".join(state.value for state in TaskState)


class FilterQuery(StrictQuery):
    """All that is given must hold."""

    state: list[str] = Field(default=[], max_length=16, description="Repeat it, or separate by commas")
    workload: list[str] = Field(
        default=[], max_length=16, description="sft, ppo, grpo or export; repeat it, or separate by commas"
    )
    since: str | None = Field(
        default=None, max_length=40, description=f"Accepted then or later; {times.RULE.removeprefix('must be ')}"
    )
    until: str | None = Field(default=None, max_length=40, description="Accepted before; as `since`")
    id_prefix: str | None = Field(default=None, max_length=_MAX_ID, description="The beginning of the id")
    id_suffix: str | None = Field(
        default=None,
        min_length=TAIL,
        max_length=_MAX_ID,
        description="The end of the id: its last 4 characters or more",
    )
    ids: list[str] = Field(
        default=[], max_length=MAX_IDS, description="These alone; unknown ones are left out. Repeat it, or by commas"
    )
    user_id: str | None = Field(default=None, max_length=64, description="Another user's tasks: admin only")

    def where(self, now: float) -> TaskFilter:
        """`now`: Unix time. Raises InvalidRequest that names the field and the rule."""
        return TaskFilter(
            states=states_of(split(self.state)),
            workloads=workloads_of(split(self.workload)),
            since=times.time_of("since", self.since, now),
            until=times.time_of("until", self.until, now),
            id_prefix=self.id_prefix or "",
            id_suffix=self.id_suffix or "",
            ids=ids_of("ids", split(self.ids), MAX_IDS),
            user_id=self.user_id,
        )


class TasksQuery(PageQuery, FilterQuery):
    pass


TasksParams = Annotated[TasksQuery, Query()]
FilterParams = Annotated[FilterQuery, Query()]


class CountsOut(BaseModel):
    counts: dict[TaskState, int] = Field(description="Each state is there")
    total: int


router = APIRouter(prefix="/api/v2", tags=["tasks"])


@router.get("/tasks")
async def list_tasks(caller: TheCaller, gateway: TheGateway, query: TasksParams) -> TasksOut:
    """Own tasks, newest first; an admin may add `user_id`."""
    where = query.where(gateway.clock())
    page = await caller.do(ListTasks(where, query.limit, decode_cursor("t", query.cursor)))
    progress = await gateway.progress_of([task for task in page.tasks if task.state.is_active])
    return TasksOut(
        # A place in the queue costs a count for each task; the queue and the task itself tell it.
        tasks=[TaskSummary.of(task, None, progress.get(task.task_id)) for task in page.tasks],
        next_cursor=None if page.next_cursor is None else encode_cursor("t", page.next_cursor),
    )


@router.get("/tasks:counts")
async def count_tasks(caller: TheCaller, gateway: TheGateway, query: FilterParams) -> CountsOut:
    """How many tasks the list of the same filter has, by state."""
    counts = await caller.do(CountTasks(query.where(gateway.clock())))
    return CountsOut(counts=dict(counts), total=sum(counts.values()))


def split(values: list[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def states_of(names: list[str], field: str = "state") -> tuple[TaskState, ...]:
    """In their order. Raises InvalidRequest."""
    if not set(names) <= {state.value for state in TaskState}:
        raise InvalidRequest("There is no such state.", [FieldError(field, f"must be of {_STATES}")])
    return tuple(state for state in TaskState if state.value in names)


def workloads_of(names: list[str], field: str = "workload") -> tuple[str, ...]:
    """The same."""
    if not set(names) <= set(KINDS):
        raise InvalidRequest("There is no such workload.", [FieldError(field, f"must be of {', '.join(KINDS)}")])
    return tuple(kind for kind in KINDS if kind in names)


def ids_of(field: str, names: list[str], most: int) -> tuple[str, ...]:
    """Each once. Raises InvalidRequest."""
    if len(names) > most:
        raise InvalidRequest("These are too many tasks.", [FieldError(field, f"at most {most} ids")])
    if any(len(name) > _MAX_ID for name in names):
        raise InvalidRequest("These are no ids.", [FieldError(field, f"each of at most {_MAX_ID} characters")])
    return tuple(dict.fromkeys(names))
