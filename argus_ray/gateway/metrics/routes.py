"""A task's curves, through all its attempts."""

from __future__ import annotations

from fastapi import APIRouter

from argus_ray.core.actions import GetTask
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.http.params import MetricsParams, TaskId
from argus_ray.gateway.metrics.curves import Found
from argus_ray.gateway.metrics.schemas import MetricsOut

router = APIRouter(prefix="/api/v2/tasks", tags=["metrics"])


@router.get("/{task_id}/metrics")
async def get_metrics(caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: MetricsParams) -> MetricsOut:
    """The main curves, or those of `names`, and how fast the run is."""
    names = query.asked()
    view, principal = await caller.do_as(GetTask(task_id))
    task = view.task

    def read() -> Found:
        return gateway.curves.read(task.attempts, names, since_step=query.since_step, max_points=query.max_points)

    found = await gateway.in_curve_turn(holder_of(principal), read)
    progress = await gateway.progress_of([task])
    return MetricsOut.of(task, found, progress.get(task.task_id))
