"""Waiting until tasks have ended, whatever restarts meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argus_ray.client import task_calls
from argus_ray.client.errors import ServerUnreachable, TryLater, WaitTimeout
from argus_ray.client.models.tasks import Task
from argus_ray.client.task_calls import Filter
from argus_ray.client.transport import Transport

_FIRST_S = 0.5
_MOST_S = 5.0
#: Ids that one list takes.
_AT_ONCE = 100


def wait_for(
    transport: Transport, ids: Sequence[str], *, any_of_them: bool, timeout: float | None, patience_s: float
) -> tuple[Task, ...]:
    """As `Client.wait`. It looks soon at first, then each five seconds or so."""
    until = None if timeout is None else transport.monotonic() + timeout
    seen: dict[str, Task] = {}
    pause_s = _FIRST_S
    while True:
        open_ones = [task_id for task_id in dict.fromkeys(ids) if task_id not in seen or not seen[task_id].has_ended]
        try:
            _look(transport, open_ones, seen, patience_s, until)
        except (ServerUnreachable, TryLater):
            # With no time left it is the end of the waiting; what has been seen is told.
            if until is None or transport.monotonic() < until or len(seen) < len(set(ids)):
                raise
        ended = tuple(seen[task_id] for task_id in ids if seen[task_id].has_ended)
        if len(ended) == len(ids) or (any_of_them and ended):
            return ended
        left = None if until is None else until - transport.monotonic()
        if left is not None and left <= 0:
            tasks = [seen[task_id] for task_id in ids]
            words = "the task has" if len(tasks) == 1 else f"{len(tasks) - len(ended)} of {len(tasks)} tasks have"
            raise WaitTimeout(f"{words} not ended in {timeout:g} s", tasks)
        wait_s = pause_s * (0.75 + transport.draw() / 2)
        transport.sleep(wait_s if left is None else min(wait_s, left))
        pause_s = min(_MOST_S, pause_s * 1.5)


def _look(
    transport: Transport, ids: Sequence[str], seen: dict[str, Task], patience_s: float, until: float | None
) -> None:
    """No longer than `until`, should the server be away."""

    def patience() -> float:
        return patience_s if until is None else min(patience_s, max(0.0, until - transport.monotonic()))

    for task_id in _worth_a_look(transport, ids, seen, patience()):
        seen[task_id] = transport.send(task_calls.task(task_id), patience_s=patience())


def _worth_a_look(
    transport: Transport, ids: Sequence[str], seen: Mapping[str, Task], patience_s: float
) -> Sequence[str]:
    """Those that have ended by now or were not seen yet; of many it is asked at once."""
    known = [task_id for task_id in ids if task_id in seen]
    if len(known) <= 1:
        return ids
    lasting: set[str] = set()
    for at in range(0, len(known), _AT_ONCE):
        call = task_calls.tasks(Filter(ids=known[at : at + _AT_ONCE]), limit=_AT_ONCE)
        found = transport.send(call, patience_s=patience_s).tasks
        lasting |= {task.task_id for task in found if not task.has_ended}
    return [task_id for task_id in ids if task_id not in lasting]
