"""The answer that carries a stream: it sends events as fast as the client takes them, and notices one that has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from fastapi import Response
from starlette.types import Receive, Scope, Send

from argus_ray.gateway.http.access import is_head
from argus_ray.gateway.logs.flow import AllowanceSpent, ClientStalled, Flow

_log = logging.getLogger("argus.gateway")


class EventStream(Response):
    """Sends events until they end, or the client leaves or takes nothing, and gives its place back in every case.

    Starlette's StreamingResponse relies on the server to report a lost client while it sends; between two
    heartbeats nothing is sent, so this one listens as well.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], release: Callable[[], None], flow: Flow) -> None:
        self._events = events
        self._release = release
        self._flow = flow
        self.status_code = 200
        self.background = None
        # nginx would otherwise collect events before it passes them on.
        self.init_headers({"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_head(scope):
            self._release()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        sending = asyncio.ensure_future(self._send_all(send))
        listening = asyncio.ensure_future(_until_disconnect(receive))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                # A bug in `events` must be seen; a client that left while we sent is none.
                with contextlib.suppress(OSError):
                    sending.result()
        except ClientStalled:
            # Without an end of the answer the server breaks the connection, which is what such a client needs.
            _log.info("a log stream ends: its client took nothing for %g s", self._flow.stall_s)
        finally:
            try:
                await _ended(sending, listening)
            finally:
                self._release()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            # An answer that ends without the event `end`: the client comes back with its Last-Event-ID.
            with contextlib.suppress(AllowanceSpent):
                async for event in events:
                    await self._flow.before(len(event))
                    await self._send(send, event)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, event: bytes) -> None:
        message = {"type": "http.response.body", "body": event, "more_body": True}
        try:
            await asyncio.wait_for(send(message), self._flow.stall_s)
        except asyncio.TimeoutError:
            raise ClientStalled() from None


async def _ended(*tasks: asyncio.Future[None]) -> None:
    """Cancel until it is so: up to Python 3.11 `asyncio.wait_for` swallows a cancellation that meets its
    result.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.1)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
