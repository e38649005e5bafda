"""The body of a request on its way in: a stranger's is not waited for.

A token that looks good may still be unknown, and only the service can say so. A small body is there with the headers,
and the action that it belongs to authenticates in the same crossing. A body that lets us wait is waited for only after
its sender's token was found good, which costs a crossing of its own. What is read before is bounded by the limits of
`body.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Message, Receive

#: Raises what the request is to be answered with.
Authenticate = Callable[[], Awaitable[object]]

#: Seconds from the first look at the body on. Enough for a body that follows its headers as a packet of its own.
PATIENCE_S = 0.25


class Arrival:
    """The `receive` of one request."""

    def __init__(self, receive: Receive, patience_s: float = PATIENCE_S) -> None:
        self._receive = receive
        self._patience_s = patience_s
        self._authenticate: Authenticate | None = None
        self._deadline: float | None = None
        self._is_late = False

    def require(self, authenticate: Authenticate) -> None:
        """Call this before the body is waited for any longer than the patience."""
        self._authenticate = authenticate

    async def __call__(self) -> Message:
        if self._authenticate is not None:
            message = await self._receive_soon()
            if message is not None:
                return message
            authenticate, self._authenticate = self._authenticate, None
            await authenticate()
        return await self._receive()

    async def _receive_soon(self) -> Message | None:
        """The next message; None if it is late."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._patience_s
        if now >= self._deadline:
            return None
        task = asyncio.current_task()
        # A task of its own for each message would cost several times as much as the message does.
        timer = asyncio.get_running_loop().call_later(self._deadline - now, self._interrupt, task)
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._is_late or _is_canceled_by_others(task):
                raise
            return None
        finally:
            timer.cancel()

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        self._is_late = True
        if task is not None:
            task.cancel()


def _is_canceled_by_others(task: asyncio.Task[Any] | None) -> bool:
    # Up to Python 3.10 a task does not count; whoever cancels at this very moment must do so again.
    uncancel = getattr(task, "uncancel", None)
    return uncancel is not None and uncancel() > 0
