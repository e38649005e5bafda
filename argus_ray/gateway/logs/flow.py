"""How much may be on its way to one client of a stream.

A client that does not read must cost a bounded amount of memory, whatever stands between us and it. Three bounds, since
no server can be relied on for one:
- `send` waits (uvicorn's flow control): the stream waits with it;
- `send` never waits (Ray Serve's Python proxy queues it all): the stream waits while the kernel holds too much
  for this client. The rate bounds what can be under way until that is seen;
- neither is to be had: the stream ends after so many bytes, and a client that reads comes back with `Last-Event-ID`.
A client that takes nothing for `stall_s` is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

#: Bytes that the kernel holds for the client; None: not known.
Queued = Callable[[], Awaitable[int | None]]


class ClientStalled(Exception):
    """The client has taken nothing for too long."""


class AllowanceSpent(Exception):
    """Nobody can tell whether the client reads, and it was sent all that it may get unseen."""


@dataclass(frozen=True)
class FlowLimits:
    """Bytes, bytes a second, and seconds."""

    #: At once, after a silence.
    burst: int = 512 * 1024
    rate: int = 2 * 1024 * 1024
    #: What the kernel may hold for a client that is sent more.
    queued: int = 256 * 1024
    #: Between two looks at the kernel's queue.
    look_bytes: int = 128 * 1024
    look_s: float = 5.0
    #: All that one connection may carry where the queue cannot be seen.
    unseen: int = 16 * 1024 * 1024
    #: With the heartbeat's 15 s, a client that is gone is given up within a minute.
    stall_s: float = 40.0
    #: Between two looks while the stream waits for the client.
    wait_s: float = 0.5


class Flow:
    """Of one stream. `before(size)` returns when that many bytes may be sent."""

    def __init__(
        self, limits: FlowLimits, queued: Queued | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits, self._queued, self._monotonic = limits, queued, monotonic
        now = monotonic()
        self._tokens, self._filled_at = float(limits.burst), now
        self._since_look, self._looked_at = 0, now
        self._last_queued, self._progress_at = 0, now
        self._unseen = 0

    @property
    def stall_s(self) -> float:
        return self._limits.stall_s

    async def before(self, size: int) -> None:
        """Wait for the rate, and for the client. Raises ClientStalled or AllowanceSpent."""
        await self._wait_for_rate(size)
        limits = self._limits
        is_due = self._since_look >= limits.look_bytes or self._monotonic() - self._looked_at >= limits.look_s
        if is_due:
            await self._wait_for_client()
        self._since_look += size

    async def _wait_for_rate(self, size: int) -> None:
        now = self._monotonic()
        refilled = self._tokens + (now - self._filled_at) * self._limits.rate
        self._tokens, self._filled_at = min(float(self._limits.burst), refilled) - size, now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._limits.rate)

    async def _wait_for_client(self) -> None:
        while await self._look() > self._limits.queued:
            await asyncio.sleep(self._limits.wait_s)

    async def _look(self) -> int:
        """What is queued; 0 if that is not known."""
        queued = None if self._queued is None else await self._queued()
        now = self._monotonic()
        sent, self._since_look, self._looked_at = self._since_look, 0, now
        if queued is None:
            self._unseen += sent
            if self._unseen > self._limits.unseen:
                raise AllowanceSpent()
            self._progress_at = now
            return 0
        # What a client takes shows as a queue that falls. It may grow between two looks all the same, but not always.
        if queued == 0 or queued < self._last_queued:
            self._progress_at = now
        elif now - self._progress_at >= self._limits.stall_s:
            raise ClientStalled()
        self._last_queued = queued
        return queued
