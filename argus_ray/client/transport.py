"""The only part of the client that does I/O: it sends calls, and sends those again that may be sent again.

The token is in the headers of the two ways of sending and nowhere else; no exception that leaves here refers to a
request.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from argus_ray.client import trust
from argus_ray.client.broken import Broken
from argus_ray.client.calls import Answer, Call, error_of, retry_after
from argus_ray.client.clock import ServerClock
from argus_ray.client.errors import ApiError, BadAnswer, BadArgument, ServerUnreachable
from argus_ray.client.patience import Patience
from argus_ray.client.plain import Plain, can_reach

if TYPE_CHECKING:
    import ssl

    import httpx2

    from argus_ray.client.full import Full

T = TypeVar("T")
#: Of proxies before a head that restarts, and its own.
_AWAY = (502, 503, 504)


class Transport:
    """Connections to one server. `on_retry` is told why a call is tried again, and in how many seconds."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        ca_file: str | None,
        timeout: float,
        retry_s: float,
        on_retry: Callable[[str, float], None] | None = None,
        http: httpx2.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`http`: in the place of connections. Raises BadArgument."""
        self.url, self._is_local = trust.base(url)
        self.monotonic, self.sleep, self.draw = monotonic, sleep, draw
        self.retry_s = retry_s
        self._timeout = timeout
        self._on_retry = on_retry
        #: Of the newest answer; None before there is one.
        self.server_version: str | None = None
        #: What time it is for the server.
        self.server_clock = ServerClock(clock)
        # At once: a file that is none is to be told before anything is asked.
        self._of_file = None if ca_file is None else trust.of_file(ca_file)
        self._make_full = _full_maker(headers, self._full_parts(http))
        self._plain: Plain | None = None
        if http is None and can_reach(self.url) and (self._is_local or not trust.may_have_proxy()):
            self._plain = Plain(self.url, headers, self._tls)
        else:
            _ = self._full  # so that a proxy that cannot be used is told at once

    def _full_parts(self, http: httpx2.BaseTransport | None) -> Callable[[], dict[str, object]]:
        return lambda: {
            # Reading certificates takes long; without TLS nothing needs them, and no redirect is followed.
            "tls": self._tls() if urlsplit(self.url).scheme == "https" else self._of_file or False,
            "timeout": self._timeout,
            # A proxy cannot reach this machine's own services, and must not see their tokens.
            "trust_env": not self._is_local,
            "http": http,
            "on_answer": self._note,
        }

    def _tls(self) -> ssl.SSLContext:
        return self._of_file or self._of_system

    @functools.cached_property
    def _of_system(self) -> ssl.SSLContext:
        return trust.of_system(trust_env=not self._is_local)

    @functools.cached_property
    def _full(self) -> Full:
        """Raises BadArgument."""
        made = self._make_full()
        if made is None:
            raise BadArgument(
                "a proxy of the environment cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be "
                "http://HOST:PORT or https://HOST:PORT"
            )
        return made

    @property
    def _http(self) -> httpx2.Client:
        return self._full.http

    @property
    def _has_answered(self) -> bool:
        return any(way.has_answered for way in (self._plain, vars(self).get("_full")) if way is not None)

    def close(self) -> None:
        for way in (self._plain, vars(self).get("_full")):
            if way is not None:
                way.close()

    def _note(self, headers: Mapping[str, str]) -> None:
        self.server_version = headers.get("x-argus-version", self.server_version)
        self.server_clock.note(headers)

    def patience(self, budget_s: float | None = None) -> Patience:
        """More than `retry_s` is for a server that was there: one that never was is most likely elsewhere."""
        wanted = self.retry_s if budget_s is None else budget_s
        return Patience(lambda: wanted if self._has_answered else min(wanted, self.retry_s), self.monotonic, self.draw)

    def send(self, call: Call[T], *, patience_s: float | None = None) -> T:
        """`patience_s`: in the place of `retry_s`. Raises ApiError, BadAnswer, BadArgument and ServerUnreachable."""
        target = call.target
        patience = self.patience(patience_s)
        was_sent = False
        while True:
            broken: Broken | None = None
            error: ApiError | BadAnswer | None = None
            try:
                answer = self._once(call, target)
            except Broken as found:
                broken = found
            # Outside of `except`: what is raised here must not drag the failed request along.
            if broken is not None:
                was_sent = was_sent or not broken.unsent
                may_repeat = call.repeats or broken.unsent
                may_be_done = was_sent and call.method != "GET"
                self.pause(patience, broken, may_repeat=may_repeat, may_be_done=may_be_done, what=repr(call))
                continue
            was_sent = True
            if answer.status < 300:
                return call.decode(answer)
            error = error_of(answer)
            if answer.status not in _AWAY or not call.repeats:
                raise error
            wait_s = patience.wait_s(retry_after(answer.headers))
            if wait_s is None:
                if isinstance(error, ApiError):
                    raise error
                raise self._unreachable(f"answer {answer.status}", patience, may_be_done=call.method != "GET")
            self._wait(f"{call!r}: {answer.status}", str(error), wait_s)

    def pause(
        self,
        patience: Patience,
        broken: Broken,
        *,
        may_repeat: bool = True,
        may_be_done: bool = False,
        what: str = "",
    ) -> None:
        """Wait before the next try. Raises ServerUnreachable if there is to be none."""
        wait_s = None if broken.final or not may_repeat else patience.wait_s()
        if wait_s is None:
            raise self._unreachable(broken.why, patience, may_be_done=may_be_done)
        self._wait(what, broken.why, wait_s)

    def pause_for(self, patience: Patience, error: ApiError) -> None:
        """The same after an answer of 503. Raises it if there is to be no next try."""
        wait_s = patience.wait_s(error.retry_after)
        if wait_s is None:
            raise error
        self._wait("", error.detail, wait_s)

    def _wait(self, what: str, why: str, wait_s: float) -> None:
        import logging  # not at each start of the command

        logging.getLogger("argus.client").info("%s: %s; again in %.1f s", what, why, wait_s)
        if self._on_retry is not None:
            self._on_retry(why, wait_s)
        self.sleep(wait_s)

    def _unreachable(self, why: str, patience: Patience, *, may_be_done: bool = False) -> ServerUnreachable:
        waited = patience.waited_s
        tried = f", tried for {waited:.0f} s" if waited >= 1 else ""
        done = "; it may have been done all the same" if may_be_done else ""
        return ServerUnreachable(f"{self.url}: {why}{tried}{done}", waited_s=waited, may_be_done=may_be_done)

    def _once(self, call: Call[T], target: str) -> Answer:
        if self._plain is None:
            from argus_ray.client import full

            with self._full.opened(*self._request(call, target), self._timeout) as response:
                return full.read(response)
        found = self._plain.exchange(call.method, target, call.headers, call.content, self._timeout)
        if not isinstance(found, Answer):
            raise found
        self._note(found.headers)
        return found

    @contextlib.contextmanager
    def opened(self, call: Call[T], *, read_s: float | None = None) -> Iterator[httpx2.Response]:
        """An answer whose body is read by the caller, within `on_broken`; it is a success.

        `read_s`: seconds without a byte. Raises ApiError, BadAnswer, BadArgument; Broken, which is never retried here.
        """
        from argus_ray.client import full

        within_s = self._timeout if read_s is None else read_s
        with self._full.opened(*self._request(call, call.target), within_s) as response:
            if response.status_code >= 300:
                answer = full.read(response)
                error = error_of(answer)
                if answer.status in _AWAY and isinstance(error, BadAnswer):
                    raise Broken(f"answer {answer.status}")
                raise error
            yield response

    def _request(self, call: Call[T], target: str) -> tuple[str, str, Mapping[str, str], bytes | None]:
        return call.method, self.url + target, call.headers, call.content


def _full_maker(headers: Mapping[str, str], parts: Callable[[], dict[str, object]]) -> Callable[[], Full | None]:
    """What makes the way by httpx2 when it is needed. The headers are kept here: no repr shows a function's values."""
    kept = dict(headers)

    def made() -> Full | None:
        from argus_ray.client.full import Full

        return Full.of(kept, **parts())  # type: ignore[arg-type]

    return made
