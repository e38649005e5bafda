"""An answer that is made as it is sent: as fast as the client takes it, and with an eye on one that has left.

Streams of events are such answers, and downloads (`gateway/files`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Response
from starlette.types import Receive, Scope, Send

from argus_ray.gateway.http.access import is_head
from argus_ray.gateway.logs.flow import AllowanceSpent, ClientStalled, Flow

_log = logging.getLogger("argus.gateway")


class Broken(Exception):
    """The answer cannot be made whole; the only argument says why."""


class FlowingAnswer(Response):
    """Sends parts until they end, or the client leaves or takes nothing, and gives its place back in every case.

    Starlette's StreamingResponse relies on the server to report a lost client while it sends; between two parts
    nothing is sent, so this one listens as well.
    """

    #: Of a log line.
    what = "an answer"

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        release: Callable[[], None],
        flow: Flow,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._parts = parts
        self._release = release
        self._flow = flow
        self.status_code = status
        self.background = None
        # nginx would otherwise collect parts before it passes them on.
        self.init_headers({**(headers or {}), "X-Accel-Buffering": "no"})

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
                # A bug in `parts` must be seen; a client that left while we sent is none.
                with contextlib.suppress(OSError):
                    sending.result()
        except ClientStalled:
            # Without an end of the answer the server breaks the connection, which is what such a client needs.
            _log.info("%s ends: its client took nothing for %g s", self.what, self._flow.stall_s)
        except Broken as broken:
            _log.info("%s is broken off: %s", self.what, broken)  # likewise
        finally:
            try:
                await _ended(sending, listening)
            finally:
                self._release()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._parts) as parts:  # type: ignore[type-var]
            try:
                async for part in parts:
                    await self._flow.before(len(part))
                    await self._send(send, part)
            except AllowanceSpent:
                self._at_allowance()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _at_allowance(self) -> None:
        """The answer ends here. Raises Broken if that would make it look whole."""
        raise Broken("nothing tells whether its client reads")

    async def _send(self, send: Send, part: bytes) -> None:
        message = {"type": "http.response.body", "body": part, "more_body": True}
        try:
            await asyncio.wait_for(send(message), self._flow.stall_s)
        except asyncio.TimeoutError:
            raise ClientStalled() from None


class EventStream(FlowingAnswer):
    """Events."""

    media_type = "text/event-stream"
    what = "a log stream"

    def _at_allowance(self) -> None:
        """An answer that ends without the event `end`: the client comes back with its Last-Event-ID."""


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
