"""Streams through a real server, as behind Serve's HAProxy: uvicorn, whose `send` waits for the client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from argus_ray.disk import logs
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.node.processes import wait_until
from tests.support.gateway import Api, log_of

MIB = 1024 * 1024
DEADLINE_S = 20.0
#: No rate, so that the client alone is what slows a stream down.
UNPACED = FlowLimits(burst=1 << 40, rate=1 << 40, wait_s=0.01)


class Unseen:
    """The kernel's queue is not known."""

    async def bytes_queued(self, connection: Any) -> int | None:
        return None


@contextlib.contextmanager
def served(app: Any, *, at: int = 0, **options: Any) -> Iterator[int]:
    """The port at which a server in a thread answers with this app: `at`, or any. `options` are uvicorn's."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", **options)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", at))
    # Kept small, or the kernel takes megabytes for each client that does not read.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    try:
        assert wait_until(lambda: server.started, DEADLINE_S, 0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(DEADLINE_S)


def open_unread(port: int, path: str, token: str) -> socket.socket:
    """A client that reads the status and nothing else."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.settimeout(DEADLINE_S)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: argus\r\nAuthorization: {token}\r\n\r\n".encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


@pytest.mark.parametrize("is_seen", [False, True], ids=["by the server alone", "with the kernel's queue"])
def test_a_client_that_does_not_read_stops_the_reading_of_its_log(
    api: Api, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    read_bytes: list[int] = []
    real = logs.read_lines_from

    def counted(*args: Any, **options: Any) -> logs.Span:
        span = real(*args, **options)
        read_bytes.append(len(span.data))
        return span

    monkeypatch.setattr(logs, "read_lines_from", counted)
    alice = api.user("alice")
    task_id = api.submit(alice)
    path = log_of(api.run(task_id))
    path.touch()
    limits = replace(UNPACED, unseen=1 << 40, stall_s=5.0)
    app = api.make_app(flow=limits)
    if not is_seen:
        app.fastapi.state.gateway = replace(app.fastapi.state.gateway, send_queues=Unseen())
    with served(app) as port, contextlib.ExitStack() as clients:
        stream = f"/api/v2/tasks/{task_id}/logs/stream"
        for _ in range(8):
            clients.enter_context(open_unread(port, stream, alice["Authorization"]))
        assert api.streams.open == 8
        block = b"".join(b"%06d %s\n" % (number, b"." * 56) for number in range(MIB // 64))

        def all_are_given_up() -> bool:
            # It grows on and on, as long as one of them is there.
            with path.open("ab") as log:
                log.write(block)
            return api.streams.open == 0 and path.stat().st_size > 8 * MIB

        assert wait_until(all_are_given_up, DEADLINE_S, 0.1), f"{api.streams.open} are still open"
    # The kernel's buffers, uvicorn's, and the block in hand; it would be the whole log eight times.
    assert sum(read_bytes) < 8 * MIB
