"""The audit as it grows, for all who follow it: one question at a time to the state actor, whoever waits."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable

from argus_ray.core.audit import AuditEntry, AuditNews
from argus_ray.core.errors import ArgusError
from argus_ray.gateway import apart

_log = logging.getLogger("argus.gateway")

#: What is new after this id; None: the newest id alone.
Ask = Callable[[int | None], Awaitable[AuditNews]]


class AuditFeed:
    """It belongs to one event loop. While nobody follows it asks nothing."""

    def __init__(self, *, poll_s: float = 1.0, kept: int = 2000) -> None:
        """`kept`: entries that are told from memory; who is further behind asks for itself."""
        self._poll_s = poll_s
        self._kept: deque[AuditEntry] = deque(maxlen=kept)
        #: The id before the first one that is kept, and the newest one; None: nothing is known.
        self._from: int | None = None
        self._newest: int | None = None
        self._changed = asyncio.Event()
        self._listeners = 0
        self._polling: asyncio.Task[None] | None = None

    async def next(self, after: int, ask: Ask, timeout_s: float) -> tuple[AuditEntry, ...]:
        """Entries after this id, oldest first, as soon as there are some; empty after `timeout_s`. Raises ArgusError
        where `ask` does, which is in the caller's name."""
        if self._from is None or after < self._from:
            news = await ask(after)
            if news.entries:
                return news.entries
        self._listeners += 1
        try:
            if self._polling is None or self._polling.done():
                self._forget(after)
                self._polling = apart.begin(lambda: self._poll(ask), "argus-audit-feed")
            return await asyncio.wait_for(self._after(after), timeout_s)
        except asyncio.TimeoutError:
            return ()
        finally:
            self._listeners -= 1

    async def _after(self, after: int) -> tuple[AuditEntry, ...]:
        while not (found := tuple(entry for entry in self._kept if entry.audit_id > after)):
            await self._changed.wait()
        return found

    def _forget(self, after: int) -> None:
        self._kept.clear()
        self._from = self._newest = after

    async def _poll(self, ask: Ask) -> None:
        while self._listeners:
            try:
                news = await ask(self._newest)
            except ArgusError as error:
                _log.warning("the audit cannot be followed now: %s", error.code)
            else:
                self._add(news)
                if news.entries and news.entries[-1].audit_id < news.newest:
                    continue  # there is more
            await asyncio.sleep(self._poll_s * (0.75 + random.random() / 2))  # noqa: S311 - no secret

    def _add(self, news: AuditNews) -> None:
        if not news.entries:
            return
        self._kept.extend(news.entries)
        self._newest = news.entries[-1].audit_id
        if len(self._kept) == self._kept.maxlen:
            self._from = self._kept[0].audit_id - 1
        # All who wait now are woken; who comes next waits for the next change.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
