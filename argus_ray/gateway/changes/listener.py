"""One stream of changes: what its client is told, in which order, and from where it goes on.

Each change is told once it is in the scope of the hub; what the hub does not hold any more is asked for from the place
of this stream. So a client that was away, or is slow, loses nothing, and is sent `resync` only when too much to tell
has changed since. While the control plane is away the stream stays open and says so.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from argus_ray.core import places
from argus_ray.core.errors import ArgusError, StaleWriter, Unavailable
from argus_ray.core.model import Task
from argus_ray.core.watching import Counts, Watch, WatchTasks
from argus_ray.gateway.changes import wire
from argus_ray.gateway.changes.bell import Bell
from argus_ray.gateway.changes.hub import Entry, Hub, Render
from argus_ray.gateway.changes.log_part import LogPart
from argus_ray.gateway.changes.progress import ProgressRounds
from argus_ray.gateway.logs.stream import KEEP_ALIVE, Place, Step

#: Seconds, at the least, between two questions of one stream for what it has missed.
_AGAIN_S = 1.0
_RESYNC = {"detail": "Too much has changed since, or the place is of another time: load the list again."}

#: In the caller's name. Raises ArgusError.
AskWatch = Callable[[WatchTasks], Awaitable[Watch]]


class ChangeListener:
    def __init__(
        self,
        hub: Hub,
        rounds: ProgressRounds,
        render: Render,
        ask: AskWatch,
        asked: WatchTasks,
        watch: Watch,
        *,
        digest: str | None,
        progress_of: frozenset[str],
        hello: Mapping[str, Any],
        log: LogPart | None = None,
        log_place: Place | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`asked`, `watch`: the question that the stream began with, and its answer. `digest`: of a user's token."""
        self._hub, self._rounds, self._render, self._ask = hub, rounds, render, ask
        self._asked, self._begun = asked, watch
        self.bell = Bell()
        self.place = watch.place
        #: Of the newest change that the client was told. `place` may be further on, by changes that are not for it.
        self._shown = watch.place
        self.digest = digest
        self.progress: dict[str, bytes] = {}
        self._watch = watch
        self._watched = [task for task in watch.tasks if task.task_id in progress_of]
        self._hello = hello
        self._log, self._log_place = log, log_place
        self._log_tag = "" if log is None else wire.log_of(log.task_id)
        self._monotonic, self._draw = monotonic, draw
        self._refusal: ArgusError | None = None
        self._was_live = True
        self._counts: Counts | None = None
        self._counts_at = watch.newest
        self._ask_at = 0.0
        #: The hub may have told others of changes since `watch`, of the tasks that were asked for by their ids as well.
        self._is_behind = False

    # --- for the hub ---

    def refuse(self, error: ArgusError) -> None:
        self._refusal = error
        self.bell.ring()

    def changed(self, task: Task) -> None:
        self._rounds.changed(task)
        if self._log is not None and self._log.task_id == task.task_id:
            self._log.changed()

    # --- for the answer ---

    async def parts(self) -> AsyncIterator[bytes]:
        scope = self._scope = self._hub.attach(self, self._begun)
        self._era = scope.era
        self._is_behind = self._hub.head > self._begun.newest
        self._rounds.follow(self, self._watched)
        if self._log is not None:
            self._log.start(self.bell)
        sent_at = self._monotonic()
        try:
            yield b"retry: 2000\n\n"
            # Without an id where the client's place is lost: it must hear of that, whenever this one breaks.
            yield wire.event("hello", self._hello, None if self._begun.is_lost else self._id())
            async for part in self._of_watch(self._begun):
                yield part
            while True:
                is_quiet = True
                async for part in self._news():
                    is_quiet = False
                    yield part
                    sent_at = self._monotonic()
                if not is_quiet:
                    continue
                left = sent_at + self._hub.pace.heartbeat_s - self._monotonic()
                if left <= 0:
                    yield KEEP_ALIVE
                    sent_at = self._monotonic()
                    continue
                await self.bell.wait(min(left, self._wait_s()))
        except ArgusError as error:
            # The answer has begun, so its status can say nothing any more.
            yield wire.event("error", {"code": error.code, "detail": error.detail})
        finally:
            self._hub.detach(self, self._begun)
            self._rounds.leave(self, self._watched)
            if self._log is not None:
                await self._log.close()

    async def _news(self) -> AsyncIterator[bytes]:
        """What there is now. Raises ArgusError when the stream ends."""
        if self._refusal is not None:
            raise self._refusal
        if self._was_live is not self._hub.is_live:
            self._was_live = self._hub.is_live
            yield wire.event("status", {"state": "live" if self._was_live else "reconnecting"})
        entries = self._entries()
        if entries is None:
            watch = await self._watch_again()
            if watch is not None:
                async for part in self._of_watch(watch):
                    yield part
        for entry in entries or ():
            yield self._task(entry.number, entry.data)
        if entries is not None:
            for part in self._news_of_counts():
                yield part
        # Nothing of what is on the disk goes to one of whom nobody knows whether they may still read it.
        if self._hub.is_checked:
            while self.progress:
                task_id = next(iter(self.progress))
                yield b"event: progress\ndata: " + self.progress.pop(task_id) + b"\n\n"
            if self._log is not None and (found := self._log.take()) is not None:
                yield self._of_log(self._log.task_id, found)

    def _entries(self) -> list[Entry] | None:
        is_told = self._era == self._scope.era and not self._is_behind
        return self._scope.since(self.place) if is_told else None

    def _wait_s(self) -> float:
        """A question that is due is asked though nothing rings."""
        if not self._hub.is_live or self._entries() is not None:
            return self._hub.pace.heartbeat_s
        return max(0.05, self._ask_at - self._monotonic())

    async def _watch_again(self) -> Watch | None:
        now = self._monotonic()
        if now < self._ask_at or not self._hub.is_live:
            return None
        self._ask_at = now + _AGAIN_S * (0.75 + self._draw() / 2)
        era = self._scope.era
        # Of these the hub tells what changes from now on.
        task_ids = self._asked.task_ids if self._is_behind or era != self._era else ()
        try:
            after = places.seal(self._watch.key, self.place)
            watch = await self._ask(replace(self._asked, after=after, task_ids=task_ids))
        except (Unavailable, StaleWriter):
            return None
        self._era, self._is_behind = era, False
        for task in watch.tasks:
            self.changed(task)
        return watch

    async def _of_watch(self, watch: Watch) -> AsyncIterator[bytes]:
        self._watch, self._counts_at = watch, watch.newest
        if watch.is_lost:
            self.place = self._shown = watch.place
            yield wire.event("resync", _RESYNC, self._id())
        data = await self._render([each.task for each in watch.changed]) if watch.changed else ()
        for each, text in zip(watch.changed, data, strict=True):
            yield self._task(each.number, text)
        # All of it is told, up to here.
        self.place = max(self.place, watch.newest)
        if watch.counts != self._counts:
            self._counts = watch.counts
            yield wire.counts_event(watch.counts)

    def _news_of_counts(self) -> list[bytes]:
        scope = self._scope
        if scope.counts is None or scope.counts_at <= self._counts_at:
            return []
        self._counts_at = scope.counts_at
        if scope.counts == self._counts:
            return []
        self._counts = scope.counts
        return [wire.counts_event(scope.counts)]

    def _task(self, number: int, data: bytes) -> bytes:
        self.place = self._shown = number
        return wire.task_event(data, self._id())

    def _of_log(self, task_id: str, found: Step | ArgusError) -> bytes:
        if isinstance(found, ArgusError):
            return wire.event("log_error", {"task_id": task_id, "code": found.code, "detail": found.detail})
        self._log_place = Place(found.number, found.end)
        if found.kind != "lines":
            return wire.event(f"log_{found.kind}", {"task_id": task_id, **found.facts}, self._id())
        data = {"task_id": task_id, "attempt": found.number, "offset": found.start, "end": found.end}
        return wire.event("log", {**data, "text": found.text}, self._id())

    def _id(self) -> str:
        place = places.seal(self._watch.key, self._shown)
        if self._log_place is None:
            return place
        return f"{place}~{self._log_tag}:{self._log_place.number or 0}:{self._log_place.offset}"
