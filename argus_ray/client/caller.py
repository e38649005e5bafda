"""A server as the holder of one token sees it: any call, and any stream. All methods of Client stand on this."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import argus_ray
from argus_ray.client.calls import Answer, Call
from argus_ray.client.errors import BadArgument
from argus_ray.client.transport import Transport

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
#: Seconds for which a log or a stream that was broken off is opened again: a head that is replaced takes minutes.
FOLLOW_S = 600.0
_TOKEN = re.compile(r"[!-~]{1,4096}")


class Caller:
    """`follow_s`: for so long streams and downloads try to reach a server again; seconds."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        ca_file: str | None = None,
        timeout: float = 30.0,
        retry_s: float = 60.0,
        follow_s: float = FOLLOW_S,
        user_agent: str | None = None,
        on_retry: Callable[[str, float], None] | None = None,
        **parts: Any,
    ) -> None:
        """`token`: None for the few calls that need none. `parts`: of Transport, for tests. Raises BadArgument."""
        headers = {"User-Agent": user_agent or f"argus-client/{argus_ray.__version__}", "Accept": "application/json"}
        if token is not None and not _TOKEN.fullmatch(token):
            token = None  # no traceback with its locals shows it
            raise BadArgument("the token has characters that no token has")
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        token = None
        try:
            self._transport = Transport(
                url, headers, ca_file=ca_file, timeout=timeout, retry_s=retry_s, on_retry=on_retry, **parts
            )
        finally:
            headers.clear()
        self._follow_s = follow_s

    @classmethod
    def over(cls, other: Caller) -> Self:
        """Of the same connections."""
        made = cls.__new__(cls)
        made._transport, made._follow_s = other._transport, other._follow_s
        return made

    def __repr__(self) -> str:
        made = vars(self).get("_transport")
        return f"{type(self).__name__}({made and made.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def server_version(self) -> str | None:
        """As the newest answer told it; None before there is one, or where it tells none."""
        return self._transport.server_version

    def server_time(self) -> float:
        """Seconds since the epoch by the server's clock, as far as its answers tell it."""
        return self._transport.server_clock.now()

    def send(self, call: Call[T], *, patience_s: float | None = None) -> T:
        """Any call, with the retries that it allows. `patience_s`: for so long in the place of `retry_s`."""
        return self._transport.send(call, patience_s=patience_s)

    def stream_events(
        self, open_at: Callable[[str | None], Call[Answer]], *, after: str | None = None, follow_s: float | None = None
    ) -> Generator[httpx2.ServerSentEvent, None, None]:
        """Server-sent events (`event`, `data`, `id`) without an end, through as many connections as it takes.

        `open_at`: the call for what follows the event of this id (None: from the beginning).
        """
        from argus_ray.client.follow import follow_events

        patience_s = self._follow_s if follow_s is None else follow_s
        return follow_events(self._transport, open_at, last_id=after, patience_s=patience_s)


def new_key() -> str:
    """An Idempotency-Key that nobody else has."""
    import os

    # Not uuid, which imports platform: it costs 5 ms of each start of the command.
    return os.urandom(16).hex()
