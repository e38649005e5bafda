"""The rate of a stream, and the kernel's send queues, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argus_ray.gateway.logs.flow import Flow, FlowLimits
from argus_ray.gateway.logs.sockets import Connection, SendQueues


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_stream_keeps_to_its_rate_after_its_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr("argus_ray.gateway.logs.flow.asyncio.sleep", time.sleep)
    flow = Flow(FlowLimits(burst=1000, rate=100), None, time.monotonic)

    async def send(count: int) -> None:
        for _ in range(count):
            await flow.before(100)

    asyncio.run(send(10))
    assert time.now == 0
    asyncio.run(send(5))
    assert time.now == pytest.approx(5)
    time.now += 1000
    asyncio.run(send(10))
    # A silence saves up one burst and no more.
    assert time.now == pytest.approx(1005)
    asyncio.run(send(1))
    assert time.now == pytest.approx(1006)


@contextmanager
def connection(family: socket.AddressFamily, host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(the server's end, the client's end)"""
    with socket.create_server((host, 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        server.setblocking(False)
        with client, server:
            yield server, client


def fill(end: socket.socket) -> int:
    """Write until nothing more goes; -> bytes."""
    written = 0
    while True:
        try:
            written += end.send(b"x" * 65536)
        except BlockingIOError:
            return written


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_tells_what_a_client_has_not_taken(family: socket.AddressFamily, host: str) -> None:
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        pytest.skip(f"no {host} here")

    async def scenario() -> None:
        with connection(family, host) as (server, client):
            scope = {"client": client.getsockname()[:2], "server": server.getsockname()[:2]}
            seen = Connection.of_scope(scope)
            assert seen is not None
            # Each look its own queues, which keep the table for a moment.
            assert await SendQueues().bytes_queued(seen) == 0
            written = fill(server)
            queued = await SendQueues().bytes_queued(seen)
            assert queued is not None
            assert 0 < queued < written
            client.settimeout(60)
            while written:
                written -= len(client.recv(1 << 20))
            async with asyncio.timeout(60):
                while await SendQueues().bytes_queued(seen):  # until the last acknowledgement has come
                    await asyncio.sleep(0.01)
        elsewhere = Connection("203.0.113.7", 40_000, 8000)
        assert await SendQueues().bytes_queued(elsewhere) is None

    asyncio.run(scenario())


def test_one_look_serves_all_streams_of_the_moment(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_bytes(
        b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n"
        b"   0: 0200000A:1F40 0900000A:9C40 01 00000030:00000007 01:00000000\n"
    )
    reads = 0

    class Counted(SendQueues):
        def _read_tables(self) -> dict[str, bytes]:
            nonlocal reads
            reads += 1
            return super()._read_tables()

    async def scenario() -> None:
        now = 0.0
        queues = Counted(tmp_path, lambda: now)
        seen = Connection("10.0.0.9", 40_000, 8000)
        assert await asyncio.gather(*(queues.bytes_queued(seen) for _ in range(64))) == [0x30] * 64
        assert reads == 1
        now = 1.0
        assert await queues.bytes_queued(seen) == 0x30
        assert reads == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"client": None, "server": ("10.0.0.2", 8000)},
        {"client": ("10.0.0.9", 0), "server": ("10.0.0.2", 8000)},
        {"client": ("10.0.0.9", 40_000), "server": ("/run/socket", None)},
    ],
)
def test_a_client_that_the_server_does_not_tell_of_is_not_known(scope: dict[str, object]) -> None:
    assert Connection.of_scope(scope) is None


def test_a_name_in_the_place_of_an_address_is_not_known() -> None:
    assert asyncio.run(SendQueues().bytes_queued(Connection("testclient", 50_000, 80))) is None
