"""An ASGI server as small as can be: one request at a time, sent as it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

#: Parts of a stream that are read, and seconds after which a client leaves one that is quiet.
_PARTS = 4
_QUIET_S = 0.2
#: Seconds for any answer.
_TIMEOUT_S = 60.0

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for given, value in self.headers if given == name), "")


class Wire:
    """Belongs to one thread, as the application does to its event loop."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def ask(self, method: str, target: str, headers: RawHeaders, body: bytes) -> Answer:
        """`target`: path and query, ASCII. Raises what the application raises; TimeoutError."""
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(method, target, headers, body), _TIMEOUT_S))

    async def _ask(self, method: str, target: str, headers: RawHeaders, body: bytes) -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),  # as uvicorn does
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }
        parts: list[bytes] = []
        start: dict[str, Any] = {}
        requests = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if requests:
                return requests.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert not start, "two answers"
                start.update(message)
                if dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream"):
                    asyncio.get_running_loop().call_later(_QUIET_S, left.set)
            else:
                parts.append(message.get("body", b""))
                if len(parts) >= _PARTS:
                    left.set()

        await self._app(scope, receive, send)
        assert start, "no answer"
        found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        return Answer(start["status"], found, b"".join(parts))
