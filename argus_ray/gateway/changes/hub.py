"""One poller of the control plane for all streams of changes of this process.

A thousand listeners cost one call a round, and one look at their tokens now and then. What is new is kept by scope
(one user's tasks, or everyone's) until the listeners there have taken it, newest state of each task only, so nothing
grows with a listener that does not read: it asks again from its own place instead. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from argus_ray.core.errors import ArgusError
from argus_ray.core.model import Task
from argus_ray.core.watching import MAX_CALLERS, Changes, CheckCallers, Counts, ReadChanges, Watch
from argus_ray.gateway import apart
from argus_ray.gateway.changes.bell import Bell

_log = logging.getLogger("argus.gateway")

#: One question to the control plane, on nobody's behalf.
Ask = Callable[[Any], Awaitable[Any]]
#: Tasks as a list shows them, each as JSON in one line. Never raises.
Render = Callable[[Sequence[Task]], Awaitable[Sequence[bytes]]]


@dataclass(frozen=True)
class HubPace:
    """Seconds; and how much is kept."""

    poll_s: float = 0.5
    #: Between two questions while there is no answer, at the most.
    slow_s: float = 5.0
    #: Between two looks at the tokens of all listeners.
    check_s: float = 20.0
    #: So long without such a look nothing is told that does not come from the control plane itself.
    grace_s: float = 45.0
    heartbeat_s: float = 15.0
    progress_s: float = 2.0
    #: Changed tasks that are kept for one scope, and bytes for all.
    kept: int = 256
    kept_bytes: int = 16 * 1024 * 1024


class Listener(Protocol):
    """One stream, as the hub sees it."""

    bell: Bell
    #: What it has been told.
    place: int
    #: Of a user's token; None: of one that holds as long as this process.
    digest: str | None

    def refuse(self, error: ArgusError) -> None:
        """It ends."""

    def changed(self, task: Task) -> None:
        """A task that it asked for by its id has changed."""


@dataclass(frozen=True)
class Entry:
    number: int
    data: bytes


@dataclass(eq=False)
class Scope:
    """What some listeners may see. `floor`: of what came after this number all is here."""

    floor: int
    listeners: set[Listener] = field(default_factory=set)
    #: By task, in the order of their numbers.
    entries: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    #: The newest, and as of which number.
    counts: Counts | None = None
    counts_at: int = 0
    #: It rises when all numbers have lost their meaning.
    era: int = 0

    @property
    def kept_bytes(self) -> int:
        return sum(len(entry.data) for entry in self.entries.values())

    def since(self, place: int) -> list[Entry] | None:
        """In the order of their numbers; None: not all of that is here."""
        if place < self.floor:
            return None
        found = []
        for entry in reversed(self.entries.values()):
            if entry.number <= place:
                break
            found.append(entry)
        return found[::-1]

    def put(self, task_id: str, entry: Entry, kept: int) -> None:
        self.entries.pop(task_id, None)
        self.entries[task_id] = entry
        while len(self.entries) > kept:
            self._drop_first()

    def forget_what_was_taken(self) -> None:
        lowest = min((listener.place for listener in self.listeners), default=0)
        while self.entries and next(iter(self.entries.values())).number <= lowest:
            self._drop_first()

    def clear(self) -> None:
        while self.entries:
            self._drop_first()

    def _drop_first(self) -> None:
        _, entry = self.entries.popitem(last=False)
        self.floor = max(self.floor, entry.number)


class Hub:
    def __init__(
        self,
        ask: Ask,
        render: Render,
        pace: HubPace | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._ask, self._render, self._monotonic, self._draw = ask, render, monotonic, draw
        self.pace = pace or HubPace()
        self._scopes: dict[str | None, Scope] = {}
        #: Listeners by the tasks that they asked for by their ids.
        self._by_task: dict[str, set[Listener]] = {}
        self._running: asyncio.Task[None] | None = None
        self._head, self._era, self._eras = 0, b"", 0
        self._checked_at = monotonic()
        #: The control plane answers.
        self.is_live = True

    @property
    def listeners(self) -> int:
        return sum(len(scope.listeners) for scope in self._scopes.values())

    @property
    def head(self) -> int:
        """The number up to which all was asked for."""
        return self._head

    @property
    def is_checked(self) -> bool:
        """It was seen of late who of the listeners may still listen."""
        return self._monotonic() - self._checked_at <= self.pace.grace_s

    def attach(self, listener: Listener, watch: Watch) -> Scope:
        """`watch`: what it was answered just now."""
        if self._running is None or self._running.done():
            self._head, self._era, self._checked_at, self.is_live = watch.newest, watch.era, self._monotonic(), True
            self._running = apart.begin(self._run, "argus-changes")
        scope = self._scopes.setdefault(watch.owner, Scope(self._head, era=self._eras))
        scope.listeners.add(listener)
        for task in watch.tasks:
            self._by_task.setdefault(task.task_id, set()).add(listener)
        return scope

    def detach(self, listener: Listener, watch: Watch) -> None:
        scope = self._scopes.get(watch.owner)
        if scope is not None:
            scope.listeners.discard(listener)
            if not scope.listeners:
                del self._scopes[watch.owner]
        for task in watch.tasks:
            others = self._by_task.get(task.task_id, set())
            others.discard(listener)
            if not others:
                self._by_task.pop(task.task_id, None)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running], timeout=1.0)

    async def _run(self) -> None:
        """Until nobody listens any more."""
        wait_s = self.pace.poll_s
        while self._scopes:
            try:
                more = await self._round()
            except ArgusError:
                wait_s = self._lost(wait_s)
            except Exception:
                _log.exception("reading changes failed")
                wait_s = self._lost(wait_s)
            else:
                self._set_live(True)
                wait_s = self.pace.poll_s
                if more:
                    continue
            await asyncio.sleep(wait_s * (0.75 + self._draw() / 2))

    def _lost(self, wait_s: float) -> float:
        self._set_live(False)
        return min(self.pace.slow_s, 2 * wait_s)

    def _set_live(self, is_live: bool) -> None:
        if self.is_live is not is_live:
            self.is_live = is_live
            self._wake(self._scopes.values())

    async def _round(self) -> bool:
        """Whether there is more."""
        if self._monotonic() - self._checked_at >= self.pace.check_s:
            await self._check()
        found: Changes = await self._ask(ReadChanges(self._head, with_total=None in self._scopes))
        if found.era != self._era or found.newest < self._head:
            self._begin_again(found)
            return False
        # Before anything is waited for: a listener that comes meanwhile begins behind what is told below.
        self._head = found.newest
        if not found.changed:
            return found.more
        try:
            await self._tell(found)
        except Exception:
            # Nobody has heard of it, and nobody waits for it: whoever may see it asks for it alone.
            for scope in self._scopes.values():
                scope.clear()
                scope.floor = max(scope.floor, found.newest)
            self._wake(self._scopes.values())
            raise
        return found.more

    def _begin_again(self, found: Changes) -> None:
        """Another database, or an older one: all that was known of numbers is void, and each listener asks anew."""
        _log.warning("the numbers of changes begin again at %d", found.newest)
        self._head, self._era, self._eras = found.newest, found.era, self._eras + 1
        for scope in self._scopes.values():
            scope.entries.clear()
            scope.floor, scope.counts, scope.era = found.newest, None, self._eras
        self._wake(self._scopes.values())

    async def _tell(self, found: Changes) -> None:
        era = self._eras
        wanted = [each for each in found.changed if None in self._scopes or each.task.user_id in self._scopes]
        for each in found.changed:
            for listener in tuple(self._by_task.get(each.task.task_id, ())):
                listener.changed(each.task)
        data = await self._render([each.task for each in wanted]) if wanted else ()
        if era != self._eras:
            return
        touched: dict[str | None, Scope] = {}
        for each, text in zip(wanted, data, strict=True):
            for owner in (each.task.user_id, None):
                scope = self._scopes.get(owner)
                if scope is not None and each.number > scope.floor:
                    if owner not in touched:
                        touched[owner] = scope
                        scope.forget_what_was_taken()
                    scope.put(each.task.task_id, Entry(each.number, text), self.pace.kept)
        for owner, scope in touched.items():
            scope.counts = found.total if owner is None else found.counts.get(owner)
            scope.counts_at = found.newest
        if sum(scope.kept_bytes for scope in self._scopes.values()) > self.pace.kept_bytes:
            _log.warning("listeners take too little: they ask anew for what they have missed")
            for scope in self._scopes.values():
                scope.clear()
        self._wake(touched.values())

    async def _check(self) -> None:
        everyone = [listener for scope in self._scopes.values() for listener in scope.listeners]
        digests = sorted({listener.digest for listener in everyone if listener.digest is not None})
        refused: dict[str, ArgusError] = {}
        for start in range(0, len(digests), MAX_CALLERS):
            refused |= await self._ask(CheckCallers(tuple(digests[start : start + MAX_CALLERS])))
        self._checked_at = self._monotonic()
        for listener in everyone:
            if listener.digest in refused:
                listener.refuse(refused[listener.digest])

    def _wake(self, scopes: Any) -> None:
        for scope in tuple(scopes):
            for listener in scope.listeners:
                listener.bell.ring()
