"""Following a log as server-sent events: from where the client is, to the end of the task, across attempts.

Events: `attempt` (its log follows), `message` (lines of the log), `end` (nothing follows: close), `error` (a
problem document; then the stream ends). An id is `<attempt>:<byte offset>`, the place after the event. The
stream polls: shared filesystems give no notice of a change, and a look every half second costs one open and
one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from fastapi import Response
from starlette.types import Receive, Scope, Send

from argus_ray.core.errors import ArgusError, LogNotFound, StaleWriter, Unavailable
from argus_ray.core.model import Attempt
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.disk.logs import NotReadable, Span

KEEP_ALIVE = b": keep-alive\n\n"
_ID = re.compile(r"(?:(\d{1,6}):)?(\d{1,18})")

#: The attempt of this number (None: the newest), and its task's state.
Find = Callable[[int | None], Awaitable[tuple[TaskState, Attempt | None]]]
#: (job root, offset, final) -> what stands there now; FileNotFoundError or NotReadable.
Read = Callable[[str, int, bool], Awaitable[Span]]


@dataclass(frozen=True)
class StreamTiming:
    """Seconds."""

    poll_s: float = 0.5
    #: How often the task's state and the caller's right to see it are asked for.
    check_s: float = 3.0
    #: How long a stream lives on while the control plane does not answer: as long as a revoked token may
    #: still read.
    grace_s: float = 30.0
    heartbeat_s: float = 15.0


class StreamLimit:
    """How many streams may be open, of everyone and of one caller."""

    def __init__(self, total: int = 64, per_caller: int = 16) -> None:
        self._total = total
        self._per_caller = per_caller
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        return self._open.total()

    def acquire(self, caller: str) -> Callable[[], None]:
        """Take a place; the answer gives it back (once, however often it is called). Raises Unavailable."""
        if self.open >= self._total or self._open[caller] >= self._per_caller:
            raise Unavailable("Too many log streams are open. Close one, or read the log without following it.")
        self._open[caller] += 1
        places = [caller]

        def release() -> None:
            if places:
                self._open.subtract([places.pop()])
                self._open += Counter()

        return release


@dataclass(frozen=True)
class Place:
    """Where a client is: after byte `offset` of the log of attempt `number` (None: of the one it asks
    for).
    """

    number: int | None
    offset: int

    @classmethod
    def parse(cls, last_event_id: str) -> Place | None:
        """From a Last-Event-ID header; None if it is not one of ours, as after a change of the server."""
        match = _ID.fullmatch(last_event_id.strip())
        return match and cls(int(match[1]) if match[1] else None, int(match[2]))


class Follower:
    """One stream's state. `events` is the whole of it: it ends when nothing more can come."""

    def __init__(
        self,
        find: Find,
        read: Read,
        timing: StreamTiming,
        *,
        state: TaskState,
        attempt: Attempt | None,
        offset: int,
        pinned: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`attempt` is where to begin (None: there is none yet); `pinned`: do not go on to the next one."""
        self._find, self._read, self._timing, self._monotonic = find, read, timing, monotonic
        self._state, self._attempt, self._offset, self._pinned = state, attempt, offset, pinned
        self._following: Attempt | None = None
        self._checked_at = self._answered_at = self._sent_at = monotonic()

    async def events(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        try:
            if self._attempt is not None:
                yield self._attempt_event(self._attempt)
            while True:
                has_ended = self._has_ended()
                data = await self._next_lines(has_ended)
                if data:
                    yield _event(data=data, id=self._id())
                elif has_ended and self._following is not None:
                    self._attempt, self._following, self._offset = self._following, None, 0
                    yield self._attempt_event(self._attempt)
                    continue
                elif self._is_over() and await self._check() and self._following is None:
                    # Drained after its end was known, so nothing more can come; and the last look has shown
                    # that the caller may still read this and that there is no attempt which we have not seen.
                    yield self._end_event()
                    return
                if self._monotonic() - self._checked_at >= self._timing.check_s:
                    was_waiting = self._attempt is None
                    await self._check()
                    if was_waiting and self._attempt is not None:
                        yield self._attempt_event(self._attempt)
                        continue
                if data:
                    self._sent_at = self._monotonic()
                    continue
                if self._monotonic() - self._sent_at >= self._timing.heartbeat_s:
                    self._sent_at = self._monotonic()
                    yield KEEP_ALIVE
                await asyncio.sleep(self._timing.poll_s)
        except ArgusError as error:
            # The answer has begun, so its status can say nothing any more.
            yield _event(event="error", data=json.dumps({"code": error.code, "detail": error.detail}))

    def _has_ended(self) -> bool:
        if self._attempt is None:
            return self._state.is_final
        return self._attempt.state is AttemptState.ENDED

    def _is_over(self) -> bool:
        return self._state.is_final or (self._pinned and self._has_ended())

    async def _next_lines(self, final: bool) -> str:
        if self._attempt is None:
            return ""
        try:
            span = await self._read(self._attempt.job_root, self._offset, final)
        except FileNotFoundError:
            return ""
        except NotReadable:
            raise LogNotFound() from None
        self._offset = span.end
        return span.data.decode("utf-8", "replace")

    async def _check(self) -> bool:
        """Ask again, in the caller's name: a revoked token, a disabled user or an end is seen here. False: no
        answer, which is borne for a while.
        """
        self._checked_at = self._monotonic()
        try:
            await self._look()
        except (Unavailable, StaleWriter):
            if self._monotonic() - self._answered_at > self._timing.grace_s:
                raise
            return False
        self._answered_at = self._monotonic()
        return True

    async def _look(self) -> None:
        if self._attempt is None:
            # The first one may have ended by now, and others begun: begin at the beginning.
            self._state, newest = await self._find(None)
            self._attempt = newest if newest is None or newest.number == 1 else (await self._find(1))[1]
            return
        self._state, self._attempt = await self._find(self._attempt.number)
        if self._attempt is not None and self._has_ended() and not self._pinned:
            with contextlib.suppress(LogNotFound):
                _, self._following = await self._find(self._attempt.number + 1)

    def _id(self) -> str:
        return f"{self._attempt.number if self._attempt else 0}:{self._offset}"

    def _attempt_event(self, attempt: Attempt) -> bytes:
        data = json.dumps({"submission_id": attempt.submission_id, "number": attempt.number})
        return _event(event="attempt", data=data, id=self._id())

    def _end_event(self) -> bytes:
        attempt = self._attempt
        outcome = attempt.outcome.value if attempt and attempt.outcome else None
        data = {"task_state": self._state.value, "attempt": attempt and attempt.number, "outcome": outcome}
        return _event(event="end", data=json.dumps(data), id=self._id())


def _event(*, data: str, event: str | None = None, id: str | None = None) -> bytes:
    """One event. A final line end is dropped, since a client adds none between events but expects lines;
    every other one, a lone carriage return included, begins a new `data:` line, or it would break the
    framing.
    """
    text = data.replace("\r\n", "\n").replace("\r", "\n")
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in text.removesuffix("\n").split("\n")]
    if id is not None:
        lines.append(f"id: {id}")
    return ("\n".join(lines) + "\n\n").encode()


class EventStream(Response):
    """Sends events until they end or the client leaves, and gives its place back in every case.

    Starlette's StreamingResponse relies on the server to report a lost client while it sends; between two
    heartbeats nothing is sent, so this one listens as well.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], release: Callable[[], None]) -> None:
        self._events = events
        self._release = release
        self.status_code = 200
        self.background = None
        # nginx would otherwise collect events before it passes them on.
        self.init_headers({"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        listening = asyncio.ensure_future(_until_disconnect(receive))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                # A bug in `events` must be seen; a client that left while we sent is none.
                with contextlib.suppress(OSError):
                    sending.result()
        finally:
            try:
                await _ended(sending, listening)
            finally:
                self._release()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._events) as events:  # type: ignore[type-var]
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


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
