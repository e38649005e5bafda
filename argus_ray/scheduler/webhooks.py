"""Telling a webhook what happens: at least once, and of one task in order, over restarts of everything.

The queue is the table of events, of which the database holds a place for each receiver. A window of events is told
whole before the place moves, so a restart tells a part of one window again, with the same ids. Tasks of one window are
told side by side. While the receiver is away one message asks for all whether it is back, nothing else is read, and
what is older than a day by then is left out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from argus_ray.core import webhooks
from argus_ray.core.webhooks import Move, Moves, Reply, Verdict, Webhook

log = logging.getLogger(__name__)

#: Deliveries to one receiver at a time.
_AT_ONCE = 4
#: Seconds between two looks for news.
_LOOK_S = 1.0
#: Events of no interest that are passed before the place is stored all the same: a restart looks at no more of them.
_PLACE_EVERY = 1000


class State(Protocol):
    """The state actor."""

    async def webhook_place(self, name: str, told_to: int | None = None) -> int: ...
    async def moves(self, place: int) -> Moves: ...


#: One delivery of this message with this body. Never raises.
Send = Callable[[Webhook, str, bytes], Awaitable[Reply]]


@dataclass
class Messenger:
    """To one receiver."""

    webhook: Webhook
    state: State
    send: Send
    cluster: str
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    #: Why it hears nothing now; None: it does, as far as is known.
    trouble: str | None = None
    #: Left out since this process began: too old, or refused.
    left_out: int = 0
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    #: Who has it asks whether the receiver is back.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Rounds in which nothing got through. Deliveries that fail side by side are one.
    _failures: int = 0
    #: Seconds until it is asked again.
    _pause_s: float = 0.0
    #: Of the window: left out since they were too old.
    _old: int = 0
    #: The place that the database holds.
    _stored: int = 0

    async def run(self) -> None:
        """For ever."""
        place: int | None = None
        failures = 0
        while True:
            try:
                if place is None:
                    place = self._stored = await self.state.webhook_place(self.webhook.name)
                new = await self.once(place)
                is_idle, place = new == place, new
                failures = 0
            except Exception as error:
                # The state actor is away: where we are is asked anew, in case that another one has told more.
                failures, is_idle, place = failures + 1, False, None
                log.warning("webhook %s: %s: %s", self.webhook.name, type(error).__name__, error)
                await self.sleep(webhooks.pause_s(failures, self.jitter()))
            if is_idle:
                await self.sleep(_LOOK_S * (0.8 + 0.4 * self.jitter()))

    async def once(self, place: int) -> int:
        """Tell the next window; the place behind it."""
        found = await self.state.moves(place)
        by_task: dict[str, list[Move]] = {}
        for move in found.moves:
            if self.webhook.wants(move):
                by_task.setdefault(move.task_id, []).append(move)
        # Not `gather` alone: if one fails the others must end before anybody begins the window again.
        told = await asyncio.gather(*map(self._tell_in_order, by_task.values()), return_exceptions=True)
        self._say_what_was_old()
        for each in told:
            if isinstance(each, BaseException):
                raise each
        if by_task or found.seen_to - self._stored >= _PLACE_EVERY:
            self._stored = await self.state.webhook_place(self.webhook.name, found.seen_to)
        return found.seen_to

    async def _tell_in_order(self, moves: list[Move]) -> None:
        for move in moves:
            await self._tell(move)

    async def _tell(self, move: Move) -> None:
        content = webhooks.body(move, self.cluster)
        message = webhooks.message_id(move, self.cluster)
        refusals = 0
        while (reply := await self._ask(move, message, content)) is not None:
            if reply.verdict is Verdict.DELIVERED:
                return
            if reply.verdict is Verdict.REFUSED:
                refusals += 1
                if refusals >= webhooks.MAX_REFUSALS:
                    self.left_out += 1
                    log.warning(
                        "webhook %s: %s is left out: it was refused %d times: %s",
                        self.webhook.name, message, refusals, reply.words,
                    )  # fmt: skip
                    return
                await self.sleep(webhooks.pause_s(refusals, self.jitter(), reply.retry_after_s))

    async def _ask(self, move: Move, message: str, content: bytes) -> Reply | None:
        """One delivery, as soon as there is hope for it; None: it has become too old for one."""
        while True:
            is_away = self._failures > 0
            async with self._turn if is_away else self._slots:
                if self._is_old(move):
                    return None
                # Another one has found out meanwhile.
                if is_away != (self._failures > 0):
                    continue
                if is_away:
                    await self.sleep(self._pause_s)
                return await self._deliver(message, content)

    async def _deliver(self, message: str, content: bytes) -> Reply:
        failures = self._failures
        reply = await self.send(self.webhook, message, content)
        if reply.verdict is Verdict.LATER:
            self._has_trouble(reply.words)
            # One that began before another has failed tells nothing more than that one.
            self._failures = max(self._failures, failures + 1)
            self._pause_s = webhooks.pause_s(self._failures, self.jitter(), reply.retry_after_s)
            return reply
        # Whatever it makes of this message: it is there.
        self._failures = 0
        if reply.verdict is Verdict.REFUSED:
            self._has_trouble(reply.words)
        elif self.trouble is not None:
            log.info("webhook %s is told again", self.webhook.name)
            self.trouble = None
        return reply

    def _has_trouble(self, words: str) -> None:
        if self.trouble is None:
            log.warning("webhook %s: %s; it is tried again", self.webhook.name, words)
        self.trouble = words

    def _is_old(self, move: Move) -> bool:
        is_old = self.clock() - move.at > webhooks.MAX_AGE_S
        self.left_out += is_old
        self._old += is_old
        return is_old

    def _say_what_was_old(self) -> None:
        if self._old:
            log.warning("webhook %s: %d messages are left out: they are older than a day", self.webhook.name, self._old)
            self._old = 0
