"""Waiting until tasks have ended, whatever restarts meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from argus_ray.client import task_calls
from argus_ray.client.errors import WaitTimeout
from argus_ray.client.models.tasks import Task
from argus_ray.client.transport import Transport

_FIRST_S = 0.5
_MOST_S = 5.0


def wait_for(
    transport: Transport, ids: Sequence[str], *, any_of_them: bool, timeout: float | None, patience_s: float
) -> tuple[Task, ...]:
    """As `Client.wait`. It looks at each task that has not ended: soon at first, then each five seconds or so."""
    until = None if timeout is None else transport.monotonic() + timeout
    seen: dict[str, Task] = {}
    pause_s = _FIRST_S
    while True:
        for task_id in dict.fromkeys(ids):
            if task_id not in seen or not seen[task_id].has_ended:
                seen[task_id] = transport.send(task_calls.task(task_id), patience_s=patience_s)
        ended = tuple(seen[task_id] for task_id in ids if seen[task_id].has_ended)
        if len(ended) == len(ids) or (any_of_them and ended):
            return ended
        left = None if until is None else until - transport.monotonic()
        if left is not None and left <= 0:
            tasks = [seen[task_id] for task_id in ids]
            open_ones = sum(not task.has_ended for task in tasks)
            raise WaitTimeout(f"{open_ones} of {len(tasks)} tasks have not ended in {timeout:g} s", tasks)
        wait_s = pause_s * (0.75 + transport.draw() / 2)
        transport.sleep(wait_s if left is None else min(wait_s, left))
        pause_s = min(_MOST_S, pause_s * 1.5)
