"""Reading event streams that break off: they are opened again, behind the last event, for as long as patience lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2

from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import BadAnswer, StaleWriter, TryLater, Unavailable
from argus_ray.client.log_feed import LogFeed, LogItem
from argus_ray.client.models.results import LogEnd
from argus_ray.client.transport import Broken, Transport

#: Seconds without a byte; the server sends a comment each 15 s.
_SILENCE_S = 50.0
#: An event of a log is 64 KiB, of which each byte may take seven.
_MOST_EVENT = 4 * 1024 * 1024


def events_of(transport: Transport, call: Call[Answer]) -> Iterator[httpx2.ServerSentEvent]:
    """Those of one connection. Raises Broken, ApiError, BadAnswer."""
    with transport.opened(call, read_s=_SILENCE_S) as response:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind != "text/event-stream":
            raise BadAnswer(f"the answer is {kind or 'of no type'} where events are expected", response.status_code)
        yield from httpx2.EventSource(response, max_event_size=_MOST_EVENT)


def follow_log(
    transport: Transport, open_at: Callable[[str | None], Call[Answer]], *, last_id: str | None, patience_s: float
) -> Iterator[LogItem]:
    """A log until its end. `open_at`: the call that goes on after the event of this id.

    `patience_s`: for how long it is tried to reach the server again since it last said something. Raises
    ServerUnreachable, ApiError, BadAnswer.
    """
    feed = LogFeed(last_id)
    patience = transport.patience(patience_s)
    while True:
        broken: Broken | None = None
        later: TryLater | None = None
        try:
            for event in events_of(transport, open_at(feed.last_id)):
                patience.renew()
                for item in feed.feed(event.event, event.data, event.id):
                    yield item
                    if isinstance(item, LogEnd):
                        return
            broken = Broken("the stream broke off")
        except Broken as found:
            broken = found
        except TryLater as error:
            later = error
        if later is not None:
            if not isinstance(later, Unavailable | StaleWriter):
                raise later
            transport.pause_for(patience, later)
        elif broken is not None:
            transport.pause(patience, broken, what="log stream")
