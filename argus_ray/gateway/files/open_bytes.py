"""Answers that anybody may have, without a token: bytes in memory, in pieces, to so many clients at a time.

They take no thread, so a flood of them costs others none. And a client that does not read holds a piece, not all of it:
what a server's `send` has taken and not sent yet is a copy for each client.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import Request, Response

from argus_ray.gateway.files import ranges
from argus_ray.gateway.files.download import Download
from argus_ray.gateway.files.ranges import Span
from argus_ray.gateway.http import problems
from argus_ray.gateway.http.access import is_head
from argus_ray.gateway.http.problems import RangeNotSatisfiable
from argus_ray.gateway.logs.event_stream import Broken
from argus_ray.gateway.logs.flow import FlowLimits
from argus_ray.gateway.logs.sockets import SendQueues, flow_to
from argus_ray.gateway.logs.stream import StreamLimit

#: Bytes that are handed on at a time.
PIECE = 64 * 1024
FLOW = FlowLimits(burst=1024 * 1024, rate=8 * 1024 * 1024, queued=PIECE, look_bytes=PIECE, stall_s=20.0, wait_s=0.05)


class OpenLimit(StreamLimit):
    """How many clients may be under way in this process, and of one address."""

    refusal = "Too many are getting this now. Try again."


@dataclass(frozen=True)
class OpenBytes:
    content: bytes = field(repr=False)
    #: What an ETag has between its quotes.
    tag: str

    @classmethod
    def of(cls, content: bytes) -> OpenBytes:
        return cls(content, hashlib.sha256(content).hexdigest()[:32])


@dataclass
class OpenAnswers:
    """What all such answers of one gateway share. It belongs to one event loop."""

    limit: StreamLimit = field(default_factory=lambda: OpenLimit(total=64, per_caller=16))
    flow: FlowLimits = FLOW
    send_queues: SendQueues = field(default_factory=lambda: SendQueues(fresh_s=0.05))
    #: Seconds of one answer. Who takes a byte now and then would keep its place for ever.
    longest_s: float = 300.0
    monotonic: Callable[[], float] = time.monotonic

    def answer(
        self, request: Request, address: str | None, found: OpenBytes, headers: Mapping[str, str], kind: str
    ) -> Response:
        """All of it, the part that Range asks for, or a 304. `address`: of the client; None: nobody knows. `headers`
        are those of a 304, too. Raises Unavailable if too many are under way."""
        tag, size = f'"{found.tag}"', len(found.content)
        headers = {**headers, "ETag": tag, "Accept-Ranges": "bytes"}
        if _has(request, tag):
            return Response(None, 304, headers)
        headers["Content-Type"] = kind
        if is_head(request.scope):
            # As the answer that is sent in pieces has it.
            return Response(None, 200, {**headers, "Content-Length": str(size), "X-Accel-Buffering": "no"})
        given = request.headers.getlist
        try:
            span = ranges.asked_for(given("range"), given("if-range"), tag, size)
        except RangeNotSatisfiable as error:
            return problems.response(request, error, {"Content-Range": f"bytes */{size}", "ETag": tag})
        status = 200 if span is None else 206
        if span is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
        span = span or Span(0, size)
        headers["Content-Length"] = str(span.end - span.start)
        # Of clients without an address nobody can tell how many are one.
        release = self.limit.acquire(address or f"unknown {id(request)}")
        flow = flow_to(request.scope, self.flow, self.send_queues)
        return Download(self._parts(found.content, span), release, flow, status=status, headers=headers)

    async def _parts(self, content: bytes, span: Span) -> AsyncIterator[bytes]:
        deadline, view = self.monotonic() + self.longest_s, memoryview(content)
        for start in range(span.start, span.end, PIECE):
            if self.monotonic() >= deadline:
                raise Broken("its client takes too long")
            yield bytes(view[start : min(start + PIECE, span.end)])


def _has(request: Request, tag: str) -> bool:
    """Whether If-None-Match has it; compared weakly, as RFC 9110 wants it."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in given.split(","))
