"""Accepting a task."""

from __future__ import annotations

import re

from argus_ray.core import ids
from argus_ray.core.actions import Principal, SubmitTask, Submitted
from argus_ray.core.errors import (
    ArgusError,
    FieldError,
    IdempotencyConflict,
    InvalidRequest,
    QueueFull,
    Unavailable,
)
from argus_ray.core.model import Task
from argus_ray.core.states import TaskState
from argus_ray.service.turn import Turn
from argus_ray.store import line, tasks

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
#: Two random bytes a second, user and workload: even with 50,000 ids of 65,536 taken, this many tries miss
#: once in 10^16.
_ID_TRIES = 136


def is_new(turn: Turn, principal: Principal, action: SubmitTask) -> bool:
    """Whether the body of this call will have to be parsed. Raises nothing."""
    if principal.user_id is None:
        return False
    key = action.idempotency_key
    return key is None or (_KEY.fullmatch(key) is not None and tasks.by_key(turn.db, principal.user_id, key) is None)


def submit(turn: Turn, principal: Principal, action: SubmitTask) -> Submitted:
    """The new task, or the first one of this Idempotency-Key.

    The key decides before the body and the limits do: who repeats a call that was accepted gets its answer,
    even if the line is full by now or a path has become invalid.
    """
    if principal.user_id is None:
        raise InvalidRequest("the admin token owns no tasks: submit with the token of a user")
    key = action.idempotency_key
    if key is not None:
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                "the Idempotency-Key is not valid",
                [FieldError("Idempotency-Key", "1 to 255 printable ASCII characters")],
            )
        first = tasks.by_key(turn.db, principal.user_id, key)
        if first is not None:
            if first.spec_yaml != action.spec_yaml:
                raise IdempotencyConflict
            return Submitted(first, created=False)
    spec = turn.specs.read(action.spec_yaml)
    if isinstance(spec, ArgusError):
        raise spec
    _check_limits(turn, principal.user_id)
    gang = turn.ports.gang_of(spec)
    for _ in range(_ID_TRIES):
        task_id = ids.task_id(principal.user_id, spec.workload, turn.now, turn.ports.entropy(2))
        seq = tasks.add(
            turn.db,
            task_id=task_id,
            user_id=principal.user_id,
            workload=spec.workload,
            gang=gang,
            spec_yaml=action.spec_yaml,
            idempotency_key=key,
            now=turn.now,
            message=f"accepted: {spec.workload} on {gang.nnodes} x {gang.gpus_per_node} GPUs",
        )
        if seq is not None:
            task = Task(
                task_id=task_id,
                user_id=principal.user_id,
                seq=seq,
                workload=spec.workload,
                state=TaskState.QUEUED,
                gang=gang,
                spec_yaml=action.spec_yaml,
                created_at=turn.now,
                updated_at=turn.now,
            )
            return Submitted(task, created=True)
    raise Unavailable("too many tasks of this user in one second: no free task id was found; try again")


def _check_limits(turn: Turn, user_id: str) -> None:
    limits = turn.ports.settings.limits
    if line.count_waiting_of(turn.db, user_id) >= limits.waiting_tasks_per_user:
        raise QueueFull(f"you have {limits.waiting_tasks_per_user} waiting tasks, which is the limit")
    if line.count_waiting(turn.db) >= limits.waiting_tasks:
        raise QueueFull(f"{limits.waiting_tasks} tasks wait, which is the limit of this cluster")
