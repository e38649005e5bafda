"""A file on its way to one client: read as fast as the client takes it, in pieces, in a bounded number of threads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from argus_ray.core.errors import ArgusError, StaleWriter, Unavailable
from argus_ray.disk.job_files import FileChanged, Openable, Readable
from argus_ray.disk.threads import BoundedThreads
from argus_ray.gateway.files.ranges import Span
from argus_ray.gateway.http.from_disk import from_disk
from argus_ray.gateway.http.turns import Turns
from argus_ray.gateway.logs.event_stream import Broken, FlowingAnswer
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.gateway.logs.sockets import SendQueues
from argus_ray.gateway.logs.stream import StreamLimit

_T = TypeVar("_T")
_File = TypeVar("_File", bound=Readable)

#: A log stream's bounds are those of a text that people read. Here a queue of the kernel is looked at more often, so
#: that a fast client need not wait, and where it cannot be seen a connection carries more.
FLOW = FlowLimits(
    burst=8 * 1024 * 1024,
    rate=64 * 1024 * 1024,
    queued=1024 * 1024,
    look_bytes=1024 * 1024,
    look_s=5.0,
    unseen=64 * 1024 * 1024,
    wait_s=0.02,
)


class DownloadLimit(StreamLimit):
    """How many downloads may be under way in this process."""

    refusal = "Too many downloads are under way. Wait for one to end."


@dataclass
class Downloads:
    """What all downloads of one gateway share. It belongs to one event loop."""

    flow: FlowLimits = FLOW
    limit: StreamLimit = field(default_factory=lambda: DownloadLimit(total=16, per_caller=4))
    #: Lists of folders take the same threads.
    lists: Turns = field(default_factory=lambda: Turns(at_once=2))
    threads: BoundedThreads = field(default_factory=lambda: BoundedThreads("argus-downloads", 8))
    send_queues: SendQueues = field(default_factory=lambda: SendQueues(fresh_s=0.05))
    #: Bytes that are read at a time. So much, and what the kernel holds, is all that one takes.
    piece: int = 256 * 1024
    #: Seconds for one piece. A filesystem that hangs must not hang the gateway.
    timeout_s: float = 15.0
    #: Seconds between two looks whether the caller may still read this.
    check_s: float = 30.0

    @classmethod
    def of_server(cls, *, send_waits: bool) -> Downloads:
        """`send_waits`: the server's `send` is known to wait for the client. Then a connection may carry any number of
        bytes, though nobody sees its queue."""
        return cls(flow=replace(FLOW, unseen=1 << 62)) if send_waits else cls()

    async def run(self, function: Callable[[], _T]) -> _T:
        """Raises what the function raises; Unavailable if the disk does not answer."""
        return await from_disk(self.threads, function, self.timeout_s)

    async def open(self, opening: Openable[_File]) -> _File:
        """Raises NoSuchFile; Unavailable if the disk does not answer."""
        try:
            return await self.run(opening.open)
        except BaseException:
            opening.leave()
            raise


class Download(FlowingAnswer):
    """A file, or a part of it."""

    what = "a download"


async def parts(
    downloads: Downloads,
    file: Readable,
    span: Span,
    check: Callable[[], Awaitable[object]],
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """The bytes of the span. `check` asks whether the caller may still read them. Raises Broken, since an answer that
    has begun can say nothing else any more."""
    at, check_at = span.start, monotonic() + downloads.check_s
    while at < span.end:
        if monotonic() >= check_at:
            await _check(check)
            check_at = monotonic() + downloads.check_s
        offset, length = at, min(downloads.piece, span.end - at)
        try:
            data = await downloads.run(lambda offset=offset, length=length: file.read(offset, length))  # type: ignore[misc]
        except FileChanged:
            raise Broken("the file has changed") from None
        except Unavailable as error:
            raise Broken(error.detail) from None
        at += length
        yield data


async def _check(check: Callable[[], Awaitable[object]]) -> None:
    try:
        await check()
    except (Unavailable, StaleWriter):
        return  # no answer says nothing
    except ArgusError as error:
        raise Broken(error.detail) from None
