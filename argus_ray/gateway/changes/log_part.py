"""One log within a stream of changes: it is read no further than the client takes it, and costs the control plane
nothing while its task does not change."""

from __future__ import annotations

import asyncio
import contextlib

from argus_ray.core.errors import ArgusError, LogNotFound
from argus_ray.core.model import Attempt
from argus_ray.core.states import TaskState
from argus_ray.gateway.changes.bell import Bell
from argus_ray.gateway.logs.stream import Find, Follower, Step

#: Seconds between two looks whether there is room, should nobody say so.
_LOOK_S = 60.0


class KnownAttempts:
    """`find`, asked again only when the task has changed since."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._known: dict[int | None, tuple[TaskState, Attempt | None] | LogNotFound] = {}

    def forget(self) -> None:
        self._known = {}

    async def __call__(self, number: int | None) -> tuple[TaskState, Attempt | None]:
        known = self._known
        if number not in known:
            try:
                known[number] = await self._find(number)
            except LogNotFound as error:
                known[number] = error
        found = known[number]
        if isinstance(found, LogNotFound):
            raise found
        return found


class LogPart:
    def __init__(self, task_id: str, follower: Follower, attempts: KnownAttempts) -> None:
        self.task_id = task_id
        self._follower, self._attempts = follower, attempts
        self._next: Step | ArgusError | None = None
        self._room = Bell()
        self._task: asyncio.Task[None] | None = None

    def start(self, bell: Bell) -> None:
        """`bell`: rings when there is something to take."""
        self._task = asyncio.create_task(self._run(bell), name="argus-log-part")

    def changed(self) -> None:
        """The task has."""
        self._attempts.forget()

    def take(self) -> Step | ArgusError | None:
        """None: there is nothing now. After a step `end` or an error nothing comes any more."""
        found, self._next = self._next, None
        if found is not None:
            self._room.ring()
        return found

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _run(self, bell: Bell) -> None:
        try:
            async with contextlib.aclosing(self._follower.steps()) as steps:
                async for step in steps:
                    if step is not None:
                        await self._put(step, bell)
        except ArgusError as error:
            await self._put(error, bell)

    async def _put(self, item: Step | ArgusError, bell: Bell) -> None:
        while self._next is not None:
            await self._room.wait(_LOOK_S)
        self._next = item
        bell.ring()
