"""What the kernel still holds for a client: bytes that were written to its connection and that it has not taken.

Where a server queues what it is given (Ray Serve's Python proxy does), `send` never waits, and this is the only sign
that a client does not read. It is also the only sign of a client that is gone without a word. Linux: /proc/net/tcp.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argus_ray.gateway.logs.flow import Flow, FlowLimits

#: Seconds that one look at the table of connections serves all streams.
_FRESH_S = 0.4


@dataclass(frozen=True)
class Connection:
    """The client's end, and our port."""

    host: str
    port: int
    own_port: int

    @classmethod
    def of_scope(cls, scope: Any) -> Connection | None:
        """From an ASGI scope; None where the server does not tell, or a proxy's header has taken the place of the
        address (then the port is 0)."""
        client, server = scope.get("client"), scope.get("server")
        if not client or not server or not client[1] or not server[1]:
            return None
        return cls(str(client[0]), int(client[1]), int(server[1]))


class SendQueues:
    """The send queues of this machine's TCP connections, for all streams of one event loop."""

    def __init__(
        self,
        folder: Path = Path("/proc/net"),
        monotonic: Callable[[], float] = time.monotonic,
        *,
        fresh_s: float = _FRESH_S,
    ) -> None:
        self._folder = folder
        self._fresh_s = fresh_s
        self._monotonic = monotonic
        self._tables: dict[str, bytes] = {}
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def bytes_queued(self, connection: Connection) -> int | None:
        """Written and not acknowledged by the client's kernel; None if there is no such connection here."""
        key = _key(connection.host)
        if key is None:
            return None
        await self._refresh()
        table, address = key
        end = f":{connection.own_port:04X} {address}:{connection.port:04X} ".encode()
        _, found, rest = self._tables.get(table, b"").partition(end)
        # After the two ends: the state, then `<send queue>:<receive queue>`, in hex.
        return int(rest.split(None, 2)[1].partition(b":")[0], 16) if found else None

    async def _refresh(self) -> None:
        if self._read_at is not None and self._monotonic() - self._read_at < self._fresh_s:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        # The others that wait need it as well when one of them leaves.
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        # A machine with many connections takes milliseconds to write the table.
        self._tables = await asyncio.to_thread(self._read_tables)
        self._read_at = self._monotonic()

    def _read_tables(self) -> dict[str, bytes]:
        found = {}
        for name in ("tcp", "tcp6"):
            try:
                found[name] = (self._folder / name).read_bytes()
            except OSError:
                # Another system, or no IPv6: then nothing is known.
                continue
        return found


def flow_to(scope: Any, limits: FlowLimits, queues: SendQueues) -> Flow:
    """Of the answer to this request."""
    connection = Connection.of_scope(scope)
    return Flow(limits, None if connection is None else lambda: queues.bytes_queued(connection))


def _key(host: str) -> tuple[str, str] | None:
    """(table, address as it is written there): 32-bit words in the machine's own byte order."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host)
    except OSError:
        return None
    words = [int.from_bytes(packed[i : i + 4], sys.byteorder) for i in range(0, len(packed), 4)]
    return "tcp6" if family == socket.AF_INET6 else "tcp", "".join(f"{word:08X}" for word in words)
