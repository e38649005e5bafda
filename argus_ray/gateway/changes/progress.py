"""The progress of the tasks that listeners have asked for: each is looked at once a round, whoever asked."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core.model import Task
from argus_ray.gateway import apart
from argus_ray.gateway.changes.bell import Bell
from argus_ray.gateway.metrics.progress import Progress
from argus_ray.gateway.tasks.schemas import ProgressOut

_log = logging.getLogger("argus.gateway")

#: Of those tasks that have some, by task id. Never raises.
Read = Callable[[Sequence[Task]], Awaitable[Mapping[str, Progress]]]
#: Tasks of one round; the others come first in the next one.
_AT_ONCE = 256
#: Rounds in which a task that does not run is looked at, until there is an answer.
_TRIES = 3


class Taker(Protocol):
    bell: Bell
    #: What it has not sent yet, the newest of each task.
    progress: dict[str, bytes]


@dataclass
class _Watched:
    task: Task
    takers: set[Taker] = field(default_factory=set)
    #: What was told last.
    data: bytes | None = None
    #: The round of the last look.
    looked_in: int = 0
    tries: int = _TRIES


class ProgressRounds:
    def __init__(self, read: Read, every_s: float) -> None:
        self._read, self._every_s = read, every_s
        self._watched: dict[str, _Watched] = {}
        self._running: asyncio.Task[None] | None = None
        self._round = 0

    def follow(self, taker: Taker, tasks: Iterable[Task]) -> None:
        for task in tasks:
            watched = self._watched.setdefault(task.task_id, _Watched(task))
            watched.takers.add(taker)
            if watched.data is not None:
                taker.progress[task.task_id] = watched.data
        if self._watched and (self._running is None or self._running.done()):
            self._running = apart.begin(self._run, "argus-progress")

    def leave(self, taker: Taker, tasks: Iterable[Task]) -> None:
        for task in tasks:
            watched = self._watched.get(task.task_id)
            if watched is not None:
                watched.takers.discard(taker)
                if not watched.takers:
                    del self._watched[task.task_id]

    def changed(self, task: Task) -> None:
        watched = self._watched.get(task.task_id)
        if watched is not None:
            watched.task, watched.tries = task, _TRIES

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=1.0)

    async def _run(self) -> None:
        while self._watched:
            try:
                await self._look()
            except Exception:
                _log.exception("reading progress failed")
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        self._round += 1
        due = [each for each in self._watched.values() if each.task.attempts and self._is_due(each)]
        due = sorted(due, key=lambda each: each.looked_in)[:_AT_ONCE]
        found = await self._read([each.task for each in due]) if due else {}
        for each in due:
            each.looked_in, each.tries = self._round, each.tries - 1
            progress = found.get(each.task.task_id)
            if progress is not None:
                each.tries = 0
                self._tell(each, progress)

    @staticmethod
    def _is_due(each: _Watched) -> bool:
        return each.task.state.is_active or each.tries > 0

    @staticmethod
    def _tell(each: _Watched, progress: Progress) -> None:
        shown = ProgressOut.of(progress)
        values = None if shown is None else shown.model_dump(mode="json")
        data = json.dumps({"task_id": each.task.task_id, "progress": values}).encode()
        if data == each.data:
            return
        each.data = data
        for taker in each.takers:
            taker.progress[each.task.task_id] = data
            taker.bell.ring()
