"""Calls that take a thread for long: those of one caller go some at a time, so that they never take all threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from argus_ray.core.errors import Unavailable


class _Caller:
    def __init__(self, at_once: int) -> None:
        self.places = asyncio.Semaphore(at_once)
        self.calls = 0


@dataclass
class Turns:
    """It belongs to one event loop."""

    #: Of one caller (a user, or a role) at work.
    at_once: int
    #: Of one caller at work or waiting.
    most: int = 16
    #: Seconds that a call waits for its turn.
    timeout_s: float = 15.0
    _callers: dict[str, _Caller] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Raises Unavailable if too many wait, or for too long."""
        mine = self._callers.setdefault(caller, _Caller(self.at_once))
        if mine.calls >= self.most:
            raise Unavailable(f"You have {self.most} calls of this kind under way. Wait for one to end.")
        mine.calls += 1
        try:
            try:
                await asyncio.wait_for(mine.places.acquire(), self.timeout_s)
            except asyncio.TimeoutError:
                raise Unavailable("Your calls before this one did not end in time. Try again.") from None
            try:
                yield
            finally:
                mine.places.release()
        finally:
            mine.calls -= 1
            if not mine.calls:
                del self._callers[caller]
