"""A client of event streams, which may also be one that does not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from tests.support.gateway import Api, Headers, log_of

#: Seconds; no test waits this long when all is well.
DEADLINE_S = 30.0


def is_heartbeat(block: str) -> bool:
    """Or something else that is no event."""
    return block.startswith((":", "retry:"))


def parsed(block: str) -> dict[str, str]:
    found = {"event": "message"} if block else {}
    lines = [line.partition(": ") for line in block.split("\n") if block]
    for name, _, value in lines:
        found[name] = f"{found[name]}\n{value}" if name == "data" and "data" in found else value
    return found


class Stream:
    """A client of one event stream, speaking ASGI itself: the usual clients wait for the whole answer.

    `takes`: the server's `send` waits while this is not set, as uvicorn's does when a client does not read.
    """

    def __init__(
        self,
        app: Any,
        path: str,
        headers: Headers,
        *,
        takes: asyncio.Event | None = None,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self._app = app
        self._takes = takes
        self._extra = scope or {}
        #: Bytes that the server has sent, read or not.
        self.sent_bytes = 0
        self._path, _, self._query = path.partition("?")
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._left = asyncio.Event()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._buffer = ""
        self._asked = False
        self.status = 0
        self.is_over = False

    async def __aenter__(self) -> Stream:
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
            "method": "GET", "scheme": "http", "path": self._path, "raw_path": self._path.encode(),
            "root_path": "", "query_string": self._query.encode(), "headers": self._headers,
            **self._extra,
        }  # fmt: skip
        self._task = asyncio.ensure_future(self._app(scope, self._receive, self._send))
        start = await self._next_message()
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait_for(asyncio.gather(self._task, return_exceptions=True), DEADLINE_S)

    async def over(self) -> None:
        """Until the server has ended its side."""
        await asyncio.wait_for(asyncio.shield(self._task), DEADLINE_S)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            if self._takes is not None:
                await self._takes.wait()
            self.sent_bytes += len(message["body"])
        await self._sent.put(message)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _next_message(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._sent.get(), DEADLINE_S)

    async def block(self) -> str:
        """The next block of the stream, as it stands on the wire; empty at the end."""
        while "\n\n" not in self._buffer:
            if self.is_over:
                return ""
            message = await self._next_message()
            self._buffer += message["body"].decode()
            self.is_over = not message.get("more_body", False)
        block, _, self._buffer = self._buffer.partition("\n\n")
        return block

    async def event(self) -> dict[str, str]:
        """The next event, without heartbeats; empty at the end."""
        while True:
            block = await self.block()
            if not is_heartbeat(block):
                return parsed(block)

    async def until(self, name: str) -> tuple[list[str], dict[str, str]]:
        """The log lines before the next event of this name, and that event."""
        seen: list[str] = []
        while (event := await self.event())["event"] != name:
            assert event["event"] in ("message", "attempt"), event
            if event["event"] == "message":
                seen += event["data"].split("\n")
        return seen, event


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 3 * DEADLINE_S))


@contextlib.asynccontextmanager
async def running_task(api: Api, query: str = "", extra: Headers | None = None) -> AsyncIterator[Any]:
    """(headers, task id, admission, stream) of a running task whose log says `zero`."""
    alice = await asyncio.to_thread(api.user, "alice")
    task_id = await asyncio.to_thread(api.submit, alice)
    change = api.run(task_id)
    log_of(change).write_text("zero\n")
    path = f"/api/v2/tasks/{task_id}/logs/stream{query}"
    async with Stream(api.app, path, {**alice, **(extra or {})}) as stream:
        yield alice, task_id, change, stream
