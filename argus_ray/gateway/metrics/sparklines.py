"""The headlines of many tasks in one answer, as small curves for a list. The wire, then the route.

One look at the disk for all, within one bound of time. It is an ornament: what cannot be read by then is left empty,
and the next call goes on there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from argus_ray.core.actions import ListTasks
from argus_ray.core.errors import InvalidRequest
from argus_ray.core.model import Task
from argus_ray.core.task_filter import MAX_IDS, TaskFilter
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.http.from_disk import from_disk
from argus_ray.gateway.http.params import StrictQuery
from argus_ray.gateway.metrics.curves import Spark
from argus_ray.gateway.tasks.many import ids_of, split


class SparklinesQuery(StrictQuery):
    task: list[str] = Field(
        min_length=1, max_length=MAX_IDS, description=f"Ids, {MAX_IDS} at most; repeated, or separated by commas"
    )
    max_points: int = Field(default=24, ge=2, le=100, description="Points of one curve")


class SparklineOut(BaseModel):
    task_id: str
    name: str | None = Field(description="Of the metric; null while there is none")
    steps: list[int]
    values: list[float] = Field(description="As many; the last one is the newest")
    complete: bool = Field(description="false: there is more to read; the same call again goes on")

    @classmethod
    def of(cls, task: Task, spark: Spark) -> SparklineOut:
        points = spark.points
        return cls(
            task_id=task.task_id, name=spark.name, steps=points.steps, values=points.values, complete=spark.complete
        )


class SparklinesOut(BaseModel):
    tasks: list[SparklineOut] = Field(
        description="In the order of the query; those that do not exist, or are not yours, are left out"
    )


router = APIRouter(prefix="/api/v2", tags=["metrics"])


@router.get("/sparklines", response_model=SparklinesOut)
async def list_sparklines(
    caller: TheCaller, gateway: TheGateway, query: Annotated[SparklinesQuery, Query()]
) -> Response:
    """The loss (sft) or score (ppo, grpo) of up to 100 tasks, as small curves through all their attempts; of those that
    have ended, too."""
    wanted = ids_of("task", split(query.task), MAX_IDS)
    if not wanted:
        raise InvalidRequest("No task is named.")
    page, principal = await caller.do_as(ListTasks(TaskFilter(ids=wanted), MAX_IDS, None))
    known = {task.task_id: task for task in page.tasks}
    tasks = [known[name] for name in wanted if name in known]
    shared = gateway.sparklines

    def read() -> bytes:
        sparks = shared.reader.headlines([task.attempts for task in tasks], max_points=query.max_points)
        return _answer(tasks, sparks)

    text = await shared.turns.run(holder_of(principal), lambda: from_disk(shared.threads, read, shared.timeout_s))
    return Response(text, media_type="application/json")


def _answer(tasks: Sequence[Task], sparks: Sequence[Spark]) -> bytes:
    found = [SparklineOut.of(task, spark) for task, spark in zip(tasks, sparks, strict=True)]
    return SparklinesOut(tasks=found).model_dump_json().encode()
