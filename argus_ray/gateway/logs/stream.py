"""Following a log as server-sent events: from where the client is, to the end of the task and of
what runs for it, across attempts.

Events: `attempt` (its log follows), `message` (lines of the log), `gap` (a part of the log that is left out, since the
client is too far behind), `end` (nothing follows: close), `error` (a problem document; then the stream ends). An id is
`<attempt>:<byte offset>`, the place after the event. The stream polls: shared filesystems give no notice of a change,
and a look every half second costs one open and one read. It reads no further than its client takes events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from argus_ray.core.errors import ArgusError, LogNotFound, StaleWriter, Unavailable
from argus_ray.core.model import Attempt
from argus_ray.core.states import AttemptState, TaskState
from argus_ray.disk.logs import NotReadable, Span

KEEP_ALIVE = b": keep-alive\n\n"
_ID = re.compile(r"(?:(\d{1,6}):)?(\d{1,18})")

#: The attempt of this number (None: the newest), and its task's state.
Find = Callable[[int | None], Awaitable[tuple[TaskState, Attempt | None]]]
#: (job root, offset, final) -> what stands there now; it starts later if too much does. FileNotFoundError or
#: NotReadable.
Read = Callable[[str, int, bool], Awaitable[Span]]


@dataclass(frozen=True)
class StreamTiming:
    """Seconds."""

    poll_s: float = 0.5
    #: How often the task's state and the caller's right to see it are asked for.
    check_s: float = 3.0
    #: How long a stream lives on while the control plane, or the disk, does not answer: as long as a revoked token may
    #: still read.
    grace_s: float = 30.0
    heartbeat_s: float = 15.0
    #: How long a canceled task is followed while its attempt, which has a grace to end in, has not ended.
    ends_s: float = 90.0


class StreamLimit:
    """How many streams may be open in this process, of everyone and of one caller (a user, or a role)."""

    refusal = "Too many log streams are open. Close one, or read the log without following it."

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
            raise Unavailable(self.refusal)
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


@dataclass(frozen=True)
class Step:
    """One thing that a follower tells: `attempt`, `lines`, `gap` or `end`. `start` and `end`: bytes of the log of
    attempt `number` (0: there is none yet)."""

    kind: str
    number: int
    start: int
    end: int
    #: The data of its event, but of `lines`, whose data is text.
    facts: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    def event(self) -> bytes:
        place = f"{self.number}:{self.end}"
        if self.kind == "lines":
            return encoded(data=self.text, id=place)
        return encoded(event=self.kind, data=json.dumps(self.facts), id=place)


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
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`attempt` is where to begin (None: there is none yet); `pinned`: do not go on to the next one; `draw`: from
        0 to 1."""
        self._find, self._read, self._timing, self._monotonic, self._draw = find, read, timing, monotonic, draw
        self._state, self._attempt, self._offset, self._pinned = state, attempt, offset, pinned
        self._following: Attempt | None = None
        #: When the task was first seen to be final.
        self._final_at = monotonic() if state.is_final else None
        self._answered_at = self._read_at = self._sent_at = monotonic()
        self._check_at = self._next_check()

    async def events(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        try:
            async with contextlib.aclosing(self.steps()) as steps:
                async for step in steps:
                    yield KEEP_ALIVE if step is None else step.event()
        except ArgusError as error:
            # The answer has begun, so its status can say nothing any more.
            yield encoded(event="error", data=json.dumps({"code": error.code, "detail": error.detail}))

    async def steps(self) -> AsyncGenerator[Step | None, None]:
        """Until `end`; None: nothing came for as long as a heartbeat is due. Raises ArgusError."""
        if self._attempt is not None:
            yield self._attempt_step(self._attempt)
        while True:
            # Before the log is read: the client may have made us wait for long.
            if self._monotonic() >= self._check_at:
                was_waiting = self._attempt is None
                await self._check()
                if was_waiting and self._attempt is not None:
                    yield self._attempt_step(self._attempt)
            has_ended = self._has_ended()
            is_over = self._is_over()
            span = await self._next_lines(has_ended or is_over)
            if span is not None:
                if span.start > self._offset:
                    yield self._gap_step(span.start)
                begin, self._offset = self._offset, span.end
                if span.data:
                    text = span.data.decode("utf-8", "replace")
                    yield Step("lines", self._number(), begin, span.end, text=text)
                    self._sent_at = self._monotonic()
                    continue
                if has_ended and self._following is not None:
                    self._attempt, self._following, self._offset = self._following, None, 0
                    yield self._attempt_step(self._attempt)
                    continue
                if is_over and await self._check() and self._following is None:
                    # Drained after its end was known, so nothing more can come; and the last look has shown
                    # that the caller may still read this and that there is no attempt which we have not seen.
                    yield self._end_step()
                    return
            if self._monotonic() - self._sent_at >= self._timing.heartbeat_s:
                self._sent_at = self._monotonic()
                yield None
            await asyncio.sleep(self._timing.poll_s)

    def _has_ended(self) -> bool:
        if self._attempt is None:
            return self._state.is_final
        return self._attempt.state is AttemptState.ENDED

    def _is_over(self) -> bool:
        if self._has_ended():
            return self._pinned or self._state.is_final
        # A canceled task is final at once, while what runs may still write; its node may never say that it has ended.
        return self._final_at is not None and self._monotonic() - self._final_at >= self._timing.ends_s

    async def _next_lines(self, final: bool) -> Span | None:
        """None: the disk does not answer, which is borne for a while and says nothing about what the log has."""
        span = Span(b"", self._offset, self._offset)
        try:
            if self._attempt is not None:
                span = await self._read(self._attempt.job_root, self._offset, final)
        except FileNotFoundError:
            pass
        except NotReadable:
            raise LogNotFound() from None
        except Unavailable:
            if self._monotonic() - self._read_at > self._timing.grace_s:
                raise
            return None
        self._read_at = self._monotonic()
        return span

    def _next_check(self) -> float:
        # Streams that began together, as after a restart, must not ask together for ever.
        return self._monotonic() + self._timing.check_s * (0.75 + self._draw() / 2)

    async def _check(self) -> bool:
        """Ask again, in the caller's name: a revoked token, a disabled user or an end is seen here. False: no
        answer, which is borne for a while.
        """
        self._check_at = self._next_check()
        try:
            await self._look()
        except (Unavailable, StaleWriter):
            if self._monotonic() - self._answered_at > self._timing.grace_s:
                raise
            return False
        self._answered_at = self._monotonic()
        if self._final_at is None and self._state.is_final:
            self._final_at = self._answered_at
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

    def _number(self) -> int:
        return self._attempt.number if self._attempt else 0

    def _attempt_step(self, attempt: Attempt) -> Step:
        facts = {"submission_id": attempt.submission_id, "number": attempt.number}
        return Step("attempt", self._number(), self._offset, self._offset, facts)

    def _gap_step(self, end: int) -> Step:
        """For the bytes from the place so far to `end`, where the stream goes on."""
        start, self._offset = self._offset, end
        facts = {"attempt": self._number(), "from": start, "to": end, "bytes": end - start}
        return Step("gap", self._number(), start, end, facts)

    def _end_step(self) -> Step:
        attempt = self._attempt
        outcome = attempt.outcome.value if attempt and attempt.outcome else None
        facts = {"task_state": self._state.value, "attempt": attempt and attempt.number, "outcome": outcome}
        return Step("end", self._number(), self._offset, self._offset, facts)


def encoded(*, data: str, event: str | None = None, id: str | None = None) -> bytes:
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
