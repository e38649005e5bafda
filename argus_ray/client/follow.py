"""Reading event streams that break off: they are opened again, behind the last event, for as long as patience lasts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator

import httpx2

from argus_ray.client.broken import Broken
from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import ApiError, BadAnswer, TryLater, kind_of
from argus_ray.client.log_feed import LogFeed, LogItem
from argus_ray.client.transport import Transport

#: Seconds without a byte; the server sends a comment each 15 s.
_SILENCE_S = 50.0
#: An event of a log is 64 KiB, of which each byte may take seven.
_MOST_EVENT = 4 * 1024 * 1024


def events_of(transport: Transport, call: Call[Answer]) -> Generator[httpx2.ServerSentEvent, None, None]:
    """Those of one connection. Raises Broken, ApiError, BadAnswer."""
    with transport.opened(call, read_s=_SILENCE_S) as response:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind != "text/event-stream":
            raise BadAnswer(f"the answer is {kind or 'of no type'} where events are expected", response.status_code)
        for event in httpx2.EventSource(response, max_event_size=_MOST_EVENT):
            # `retry` alone is no event, but httpx2 makes one of it.
            if event.retry is None or event.data:
                yield event


def follow_events(
    transport: Transport, open_at: Callable[[str | None], Call[Answer]], *, last_id: str | None, patience_s: float
) -> Generator[httpx2.ServerSentEvent, None, None]:
    """Events without an end. `open_at`: the call that goes on after the event of this id.

    `patience_s`: for how long it is tried to reach the server again since it last said something. Raises
    ServerUnreachable, BadAnswer, and ApiError, also for the event `error`, unless that is worth another try.
    """
    patience = transport.patience(patience_s)
    while True:
        broken: Broken | None = None
        later: TryLater | None = None
        try:
            for event in events_of(transport, open_at(last_id)):
                if event.event == "error":
                    raise _error_of(event)
                patience.renew()
                last_id = event.id or last_id
                yield event
            broken = Broken("the stream broke off")
        except Broken as found:
            broken = found
        except TryLater as error:
            later = error
        if later is not None:
            transport.pause_for(patience, later)
        elif broken is not None:
            transport.pause(patience, broken, what="stream")


def _error_of(event: httpx2.ServerSentEvent) -> ApiError:
    try:
        document = json.loads(event.data)
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, TypeError, KeyError):
        raise BadAnswer("an error in the stream is not understood") from None
    kind = kind_of(code, 500)
    # The answer was a 200 by then; this is what it would have been.
    return kind(code, 503 if issubclass(kind, TryLater) else 500, detail)


def follow_log(
    transport: Transport, open_at: Callable[[str | None], Call[Answer]], *, last_id: str | None, patience_s: float
) -> Generator[LogItem, None, None]:
    """A log until its end. Raises as `follow_events`."""
    feed = LogFeed(last_id)
    events = follow_events(transport, open_at, last_id=last_id, patience_s=patience_s)
    with contextlib.closing(events):
        for event in events:
            yield from feed.feed(event.event, event.data, event.id)
            if feed.has_ended:
                return
