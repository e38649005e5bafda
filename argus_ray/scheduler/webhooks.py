"""Telling a webhook what happens: at least once, and of one task in order, over restarts of everything.

The queue is the table of events, of which the database holds a place for each receiver. A window of events is told
whole before the place moves, so a restart tells a part of one window again, with the same ids. Tasks of one window are
told side by side; while the receiver is away nothing else is read, and what is older than a day by then is left out."""

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
    #: Failures in a row, of all messages: they go to one receiver.
    _failures: int = 0
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
        while True:
            if self.clock() - move.at > webhooks.MAX_AGE_S:
                return self._leave_out(message, "it is older than a day")
            async with self._slots:
                reply = await self.send(self.webhook, message, content)
            if reply.verdict is Verdict.DELIVERED:
                return self._is_well()
            if reply.verdict is Verdict.REFUSED:
                refusals += 1
                if refusals >= webhooks.MAX_REFUSALS:
                    return self._leave_out(message, f"it was refused {refusals} times: {reply.words}")
            self._has_trouble(reply.words)
            await self.sleep(webhooks.pause_s(self._failures, self.jitter(), reply.retry_after_s))

    def _is_well(self) -> None:
        if self.trouble is not None:
            log.info("webhook %s is told again", self.webhook.name)
        self.trouble, self._failures = None, 0

    def _has_trouble(self, words: str) -> None:
        if self.trouble is None:
            log.warning("webhook %s: %s; it is tried again", self.webhook.name, words)
        self.trouble = words
        self._failures += 1

    def _leave_out(self, message: str, why: str) -> None:
        self.left_out += 1
        log.warning("webhook %s: %s is left out: %s", self.webhook.name, message, why)
