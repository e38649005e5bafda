"""What all parts of Client stand on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import httpx2

from argus_ray.client.calls import Answer, Call
from argus_ray.client.follow import follow_events
from argus_ray.client.transport import Transport

T = TypeVar("T")


class Part:
    """`_follow_s`: for so long streams and downloads try to reach a server again; seconds."""

    _transport: Transport
    _follow_s: float

    def send(self, call: Call[T], *, patience_s: float | None = None) -> T:
        """Any call, with the retries that it allows. `patience_s`: for so long in the place of `retry_s`."""
        return self._transport.send(call, patience_s=patience_s)

    def stream_events(
        self, open_at: Callable[[str | None], Call[Answer]], *, after: str | None = None, follow_s: float | None = None
    ) -> Generator[httpx2.ServerSentEvent, None, None]:
        """Server-sent events (`event`, `data`, `id`) without an end, through as many connections as it takes.

        `open_at`: the call for what follows the event of this id (None: from the beginning).
        """
        patience_s = self._follow_s if follow_s is None else follow_s
        return follow_events(self._transport, open_at, last_id=after, patience_s=patience_s)
