"""What verl has written of its samples: which steps there are, and the samples of one."""

from __future__ import annotations

from fastapi import APIRouter, Response

from argus_ray.core.actions import GetTask
from argus_ray.disk.rollouts import Budget
from argus_ray.gateway.caller import TheCaller, TheGateway, holder_of
from argus_ray.gateway.files import task_files
from argus_ray.gateway.http.from_disk import from_disk
from argus_ray.gateway.http.params import RolloutsParams, TaskId
from argus_ray.gateway.rollouts import reader
from argus_ray.gateway.rollouts.reader import Wish
from argus_ray.gateway.rollouts.schemas import RolloutsOut

router = APIRouter(prefix="/api/v2/tasks", tags=["rollouts"])


@router.get("/{task_id}/rollouts", response_model=RolloutsOut)
async def get_rollouts(caller: TheCaller, gateway: TheGateway, task_id: TaskId, query: RolloutsParams) -> Response:
    """Which steps there are samples of, the newest first; with `step`: prompts, answers and scores of that step."""
    view, principal = await caller.do_as(GetTask(task_id))
    task = view.task
    task_files.require_files(task)
    attempts = task.attempts
    if query.attempt is not None:
        chosen = task_files.attempt_of(task, query.number)
        attempts = () if chosen is None else (chosen,)
    wish = Wish(query.kind, query.limit, query.cursor, query.max_chars)
    shared = gateway.rollouts

    def read() -> bytes:
        # As it goes out: an answer of a megabyte would hold up the loop.
        if query.step is None:
            found = reader.list_steps(shared.reader, task.task_id, attempts, wish, Budget())
        else:
            found = reader.list_samples(shared.reader, task.task_id, attempts, query.step, wish, Budget())
        return found.model_dump_json().encode()

    text = await shared.turns.run(holder_of(principal), lambda: from_disk(shared.threads, read, shared.timeout_s))
    return Response(text, media_type="application/json")
