"""Somebody waits, and several others may have something for them."""

from __future__ import annotations

import asyncio


class Bell:
    """Of one that waits. Costs no task and no queue: a thousand of them wait in one event loop."""

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Until it rings or that time has passed; at once if it has rung since the last wait."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(max(0.0, seconds), _release, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._rung = False


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
